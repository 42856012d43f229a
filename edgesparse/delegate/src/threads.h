// A pool of threads that run the parts of one step.
#pragma once

namespace edgesparse {

typedef void (*Part)(void* argument, int part, int parts);

struct Pool;
// `threads` in all, the caller included; null for one.
Pool* start_pool(int threads);
void stop_pool(Pool*);
int pool_size(const Pool*);
// Calls part(argument, i, parts) for each i < parts = pool_size(), each in a thread of its own; returns when
// all have ended.
void run_parts(Pool*, Part part, void* argument);

}  // namespace edgesparse
