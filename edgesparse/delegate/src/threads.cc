// flags: -O2
#include "threads.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "memory.h"

namespace edgesparse {

struct Pool {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t work = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
  pthread_t* workers = nullptr;
  int threads = 1, parts = 1, asleep = 0;
  bool stop = false;
  // Which call of run_parts this is (upper half) and how many of its parts are taken (lower half). A thread
  // takes a part by adding one; what follows cannot change before that part has ended.
  uint64_t state = 0;
  int unfinished = 0;
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

// Takes a part and runs it, if there is one.
static bool run_one(Pool* pool) {
  uint64_t state = __atomic_load_n(&pool->state, __ATOMIC_ACQUIRE);
  do {
    if ((int)(uint32_t)state >= pool->parts) return false;
  } while (
      !__atomic_compare_exchange_n(&pool->state, &state, state + 1, true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
  pool->part(pool->argument, (int)(uint32_t)state, pool->parts);
  if (__atomic_sub_fetch(&pool->unfinished, 1, __ATOMIC_ACQ_REL) == 0) {
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
  }
  return true;
}

static bool has_work(Pool* pool) {
  return (int)(uint32_t)__atomic_load_n(&pool->state, __ATOMIC_ACQUIRE) < pool->parts;
}

static void* work(void* argument) {
  Pool* pool = (Pool*)argument;
  for (;;) {
    for (int i = 0; i < kSpins; i++)
      if (run_one(pool))
        i = 0;
      else
        pause_briefly();
    pthread_mutex_lock(&pool->lock);
    pool->asleep++;
    while (!has_work(pool) && !pool->stop) pthread_cond_wait(&pool->work, &pool->lock);
    pool->asleep--;
    const bool stop = pool->stop;
    pthread_mutex_unlock(&pool->lock);
    if (stop) return nullptr;
  }
}

Pool* start_pool(int threads) {
  if (threads < 2) return nullptr;
  Pool* pool = (Pool*)malloc(sizeof(Pool));
  if (!pool) return nullptr;
  *pool = Pool();
  pool->state = pool->parts = 2 * threads;  // nothing to take
  pool->workers = (pthread_t*)malloc(sizeof(pthread_t) * (size_t)threads);
  if (!pool->workers) abort();
  for (int i = 1; i < threads; i++) {
    if (pthread_create(&pool->workers[pool->threads], nullptr, work, pool)) break;
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
  for (int i = 1; i < pool->threads; i++) pthread_join(pool->workers[i], nullptr);
  free(pool->workers);
  free(pool);
}

int part_count(const Pool* pool) { return pool ? pool->parts : 1; }

void run_parts(Pool* pool, Part part, void* argument) {
  if (!pool) return part(argument, 0, 1);
  pthread_mutex_lock(&pool->lock);
  pool->part = part;
  pool->argument = argument;
  __atomic_store_n(&pool->unfinished, pool->parts, __ATOMIC_RELEASE);
  __atomic_store_n(&pool->state, ((pool->state >> 32) + 1) << 32, __ATOMIC_RELEASE);
  if (pool->asleep) pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);
  while (run_one(pool)) {
  }
  for (int i = 0; i < kSpins && __atomic_load_n(&pool->unfinished, __ATOMIC_ACQUIRE); i++) pause_briefly();
  // Also when all have ended: the last one may still hold the lock to say so.
  pthread_mutex_lock(&pool->lock);
  while (__atomic_load_n(&pool->unfinished, __ATOMIC_ACQUIRE)) pthread_cond_wait(&pool->done, &pool->lock);
  pthread_mutex_unlock(&pool->lock);
}

}  // namespace edgesparse
