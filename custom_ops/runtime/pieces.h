// What functions share that are made of pieces: between two of `cells` + 1 equally spaced places,
// neighbouring numbers of a list make the function.

#ifndef KERAS_LEARNACT_RUNTIME_PIECES_H_
#define KERAS_LEARNACT_RUNTIME_PIECES_H_

#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// The whole number 0 … cells - 1 below u, and the kOwn numbers of c from that one on. nan: 0.
template <int kOwn, typename R>
HOST_DEVICE R Pick(const R* c, int cells, R u, R* own) {
  R cell(0.0);
  for (int k = 0; k < kOwn; ++k) own[k] = c[k];
  for (int i = 1; i < cells; ++i) {
    const R place(1.0 * i);
    const auto beyond = u >= place;
    cell = Select(beyond, place, cell);
    for (int k = 0; k < kOwn; ++k) own[k] = Select(beyond, c[i + k], own[k]);
  }
  return cell;
}

// Adds the shares to the kOwn numbers of dc from that of the cell on.
template <int kOwn, typename R>
HOST_DEVICE void Spread(R* dc, int cells, R cell, const R* shares) {
  for (int i = 0; i < cells; ++i) {
    const auto here = cell == R(1.0 * i);
    for (int k = 0; k < kOwn; ++k) dc[i + k] += Select(here, shares[k], R(0.0));
  }
}

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_RUNTIME_PIECES_H_
