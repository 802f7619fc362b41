// A small pool of threads that stay, shared by all kernels of a library.

#ifndef KERAS_LEARNACT_RUNTIME_POOL_H_
#define KERAS_LEARNACT_RUNTIME_POOL_H_

#include <stdint.h>

namespace keras_learnact {

// Calls function(context, i) for every i in [0, count), on this thread and those of the pool, in
// any order, with denormal numbers kept. Safe from many threads at once and after fork().
void ParallelFor(int64_t count, void (*function)(void*, int64_t), void* context);

// How many threads a call may use, this one included: KERAS_LEARNACT_NUM_THREADS, else as many
// processors as this process may run on.
int NumThreads();
void SetNumThreads(int count);  // at least 1

}  // namespace keras_learnact

#endif  // KERAS_LEARNACT_RUNTIME_POOL_H_
