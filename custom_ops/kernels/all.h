// The one list of kernels. A new one is its header, some_name.h, and a line here, KERNEL(SomeName).
//
// A kernel is a struct SomeName with
//   kName      "SomeName": the TensorFlow op is KerasLearnact>SomeName
//   kRandom    whether it draws random numbers
//   Settings   what its call's settings say
//   static bool Parse(const Call&, Settings*, Error*)
//              reads the settings and compares them with the number of parameters; anything may
//              stand in them, since a call may come from a file
//   static void Specialize(const Settings&, f)
//              calls f(formula); formulas of the usual sizes are types of their own, with loops
//              that are unrolled
// and a formula, scalar maths, is a struct with
//   kMaxPrepared, int prepared()
//              how many numbers a group has after
//   void Prepare(const T* params, T* p)
//              what is the same for all elements of a group; T is float or double
//   R Forward(const R* p, R x, Place)
//   R Backward(const R* p, R x, R dy, R* dp, Place)
//              gives dx and adds the element's share of the gradient of p to dp
//   void Finish(const T* params, const double* dp, T* dparams)
//              from the gradient of p to that of params
//   kAlwaysUsual; if false:
//   Usual(const R* p, R x)
//              where Forward and Backward may be used: no number in them overflows
//   T CarefulForward(const T* p, T x, Place), T CarefulBackward(const T* p, T x, T dy, double* dp, Place)
//              everywhere else, for one element; usually the same formula with R = Wide
// R is Vec<T>, Wide, float or double (portable.h). p, dp are [prepared()].
//
// A pooling kernel has no parameters; `pieces` neighbours on an axis of x, as many as its one
// setting says, become one element of y. It is a struct SomeName with
//   kName, kRandom
//   kPools     true
//   static R Join(R y, R x)
//              y of some pieces, at first of one, and of one more
//   static R Shares(R y, R x)
//              a piece's share of dy, before it is divided by the sum of all shares
//   static R Backward(R y, R x, R share)
//              dx of a piece; `share` is dy over that sum

#ifndef KERAS_LEARNACT_KERNELS_ALL_H_
#define KERAS_LEARNACT_KERNELS_ALL_H_

#define KERAS_LEARNACT_KERNELS(KERNEL) \
  KERNEL(Rational)                     \
  KERNEL(RandomizedRational)           \
  KERNEL(Apl)                          \
  KERNEL(Srelu)                        \
  KERNEL(Mixture)                      \
  KERNEL(Deu)                          \
  KERNEL(Prelu)                        \
  KERNEL(SmoothMaximum)                \
  KERNEL(Pwlu)                         \
  KERNEL(Bspline)                      \
  KERNEL(Hermite)                      \
  KERNEL(Ditac)                        \
  KERNEL(Apa)                          \
  KERNEL(Eelu)                         \
  KERNEL(CubicRelu)                    \
  KERNEL(Pelu)                         \
  KERNEL(Snake)                        \
  KERNEL(Maxout)

#endif  // KERAS_LEARNACT_KERNELS_ALL_H_
