// flags: -O2
#include "threads.h"

#include <pthread.h>
#include <stdlib.h>

#include "memory.h"

namespace edgesparse {

struct Worker {
  Pool* pool;
  int number;
  pthread_t thread;
};

struct Pool {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t work = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
  Worker* workers = nullptr;
  int threads = 1;
  unsigned turn = 0;  // counts calls of run_parts; read without the lock while a worker spins
  int waiting = 0;    // parts that have not ended; the same
  bool stop = false;
  Part part = nullptr;
  void* argument = nullptr;
};

// Steps follow one another within microseconds: spin a little before sleeping.
static const int kSpins = 2000;

static void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

static void* work(void* argument) {
  Worker* worker = (Worker*)argument;
  Pool* pool = worker->pool;
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < kSpins && __atomic_load_n(&pool->turn, __ATOMIC_ACQUIRE) == seen; i++) pause_briefly();
    pthread_mutex_lock(&pool->lock);
    while (pool->turn == seen && !pool->stop) pthread_cond_wait(&pool->work, &pool->lock);
    seen = pool->turn;
    const bool stop = pool->stop;
    pthread_mutex_unlock(&pool->lock);
    if (stop) return nullptr;
    pool->part(pool->argument, worker->number, pool->threads);
    if (__atomic_sub_fetch(&pool->waiting, 1, __ATOMIC_ACQ_REL) == 0) {
      pthread_mutex_lock(&pool->lock);
      pthread_cond_signal(&pool->done);
      pthread_mutex_unlock(&pool->lock);
    }
  }
}

Pool* start_pool(int threads) {
  if (threads < 2) return nullptr;
  Pool* pool = (Pool*)malloc(sizeof(Pool));
  if (!pool) return nullptr;
  *pool = Pool();
  pool->workers = (Worker*)malloc(sizeof(Worker) * (size_t)threads);
  if (!pool->workers) abort();
  for (int i = 1; i < threads; i++) {
    Worker* worker = &pool->workers[pool->threads];
    worker->pool = pool;
    worker->number = pool->threads;
    if (pthread_create(&worker->thread, nullptr, work, worker)) break;
    pool->threads++;
  }
  return pool;
}

void stop_pool(Pool* pool) {
  if (!pool) return;
  pthread_mutex_lock(&pool->lock);
  pool->stop = true;
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);
  for (int i = 1; i < pool->threads; i++) pthread_join(pool->workers[i].thread, nullptr);
  free(pool->workers);
  free(pool);
}

int pool_size(const Pool* pool) { return pool ? pool->threads : 1; }

void run_parts(Pool* pool, Part part, void* argument) {
  if (!pool || pool->threads == 1) return part(argument, 0, 1);
  pthread_mutex_lock(&pool->lock);
  pool->part = part;
  pool->argument = argument;
  __atomic_store_n(&pool->waiting, pool->threads - 1, __ATOMIC_RELEASE);
  __atomic_add_fetch(&pool->turn, 1, __ATOMIC_ACQ_REL);
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);
  part(argument, 0, pool->threads);
  for (int i = 0; i < kSpins && __atomic_load_n(&pool->waiting, __ATOMIC_ACQUIRE); i++) pause_briefly();
  if (!__atomic_load_n(&pool->waiting, __ATOMIC_ACQUIRE)) return;
  pthread_mutex_lock(&pool->lock);
  while (__atomic_load_n(&pool->waiting, __ATOMIC_ACQUIRE)) pthread_cond_wait(&pool->done, &pool->lock);
  pthread_mutex_unlock(&pool->lock);
}

}  // namespace edgesparse
