// Maxout (Goodfellow, Warde-Farley, Mirza, Courville, Bengio, ICML 2013; MATH.md, section 4):
//
//   y = max_{j=0..k−1} x_j
//
// Settings: k. A pooling kernel, see kernels/all.h. nan in a group gives nan, in y and in dx. Where
// several pieces are the largest, each gets an equal share of the gradient.

#ifndef KERAS_LEARNACT_KERNELS_MAXOUT_H_
#define KERAS_LEARNACT_KERNELS_MAXOUT_H_

#include "runtime/call.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

struct Maxout {
  static constexpr char kName[] = "Maxout";
  static constexpr bool kRandom = false;
  static constexpr bool kPools = true;

  // y of some pieces and one more.
  template <typename R>
  static HOST_DEVICE R Join(R y, R x) {
    return Select(x > y, x, Select(x == x, y, x));
  }

  // 1 for a piece that shares dy with others.
  template <typename R>
  static HOST_DEVICE R Shares(R y, R x) {
    return Select(x == y, R(1.0), R(0.0));
  }

  // dx of a piece; `share` is dy over the sum of Shares.
  template <typename R>
  static HOST_DEVICE R Backward(R y, R x, R share) {
    return Select(x == y, share, Select(y == y, R(0.0), y));
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_MAXOUT_H_
