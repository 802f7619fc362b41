// What the fuzzers share: calls by number, each of which can be made again.

#ifndef KERAS_LEARNACT_TESTS_NATIVE_FUZZING_H_
#define KERAS_LEARNACT_TESTS_NATIVE_FUZZING_H_

#include <signal.h>
#include <time.h>

#include <string>

#include "calls.h"

namespace keras_learnact {

inline int64_t seed = 1, number = 0;
inline std::string current;  // the call that is being made, in words
inline const char* program = "";

inline void SayWhere() {
  fprintf(stderr, "In call %lld of seed %lld: %s\nAgain: %s 1 %lld %lld\n",
          static_cast<long long>(number), static_cast<long long>(seed), current.c_str(), program,
          static_cast<long long>(seed), static_cast<long long>(number));
}

inline void Expect(bool condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "Wrong: %s\n", what);
  SayWhere();
  exit(1);
}

// one_call(&random) for the calls from number `first` on, until it has taken that long.
template <typename F>
void MakeCalls(double seconds, int64_t first, const F& one_call) {
  timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (number = first;; ++number) {
    if (number % 16 == 0) {
      clock_gettime(CLOCK_MONOTONIC, &now);
      if ((now.tv_sec - start.tv_sec) + 1e-9 * (now.tv_nsec - start.tv_nsec) > seconds) break;
    }
    Random random(static_cast<uint64_t>(seed) * 0x9e3779b97f4a7c15 + static_cast<uint64_t>(number));
    one_call(&random);
  }
}

// The program NAME [SECONDS [SEED [FIRST]]].
inline int FuzzerMain(const char* name, int (*fuzz)(double seconds, int64_t first), int count,
                      char** arguments) {
  program = name;
  const double seconds = count > 1 ? atof(arguments[1]) : 20;
  if (count > 2) seed = atoll(arguments[2]);
  // With abort_on_error a sanitizer ends so; see run.py.
  signal(SIGABRT, [](int) { SayWhere(); });
  return fuzz(seconds, count > 3 ? atoll(arguments[3]) : 0);
}

}  // namespace keras_learnact

#endif  // KERAS_LEARNACT_TESTS_NATIVE_FUZZING_H_
