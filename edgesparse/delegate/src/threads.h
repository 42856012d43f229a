// A pool of threads that run the parts of one step.
#pragma once

namespace edgesparse {

typedef void (*Part)(void* argument, int part, int parts);

struct Pool;
// `threads` in all, the caller included; null for one.
Pool* start_pool(int threads);
void stop_pool(Pool*);
// Into how many parts steps are split: more than threads, so that one that the system has stopped delays
// little.
int part_count(const Pool*);
// Calls part(argument, i, parts) for each i < parts = part_count(), in whichever thread is free; returns when
// all have ended.
void run_parts(Pool*, Part part, void* argument);

}  // namespace edgesparse
