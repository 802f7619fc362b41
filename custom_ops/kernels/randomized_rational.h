// RPAU (Molina, Schramowski, Kersting, ICLR 2020, Eq. 3; MATH.md, section 2): Rational with
// coefficients
//
//   c_k (1 + noise u_k),   u_k uniform in (−1, 1), drawn for each element
//
// Settings: those of Rational, and noise. The draws come from Philox, so that the gradient finds
// them again. It takes the noise as an added constant: it is Rational's at the noisy coefficients.

#ifndef KERAS_LEARNACT_KERNELS_RANDOMIZED_RATIONAL_H_
#define KERAS_LEARNACT_KERNELS_RANDOMIZED_RATIONAL_H_

#include "kernels/rational.h"
#include "runtime/call.h"
#include "runtime/philox.h"
#include "runtime/portable.h"

namespace keras_learnact::KLA_TARGET {

// Of usual sizes only for noise <= 1, where no coefficient changes its sign.
template <char kVersion, int kA, int kB>
struct RandomizedRationalFormula {
  using Plain = RationalFormula<kVersion, kA, kB>;
  static constexpr int kMaxPrepared = Plain::kMaxPrepared;
  static constexpr bool kAlwaysUsual = false;
  // For A, p has |b_k|. With noise, its sign says whether that of b_k has changed.
  static constexpr bool kFlips = kVersion == 'A' && kA == 0;

  Plain plain;
  double noise;

  HOST_DEVICE int count() const { return plain.a() + plain.b(); }
  HOST_DEVICE int prepared() const { return plain.prepared(); }

  template <typename T>
  HOST_DEVICE void Prepare(const T* params, T* p) const {
    plain.Prepare(params, p, static_cast<T>(1 + noise));
  }

  template <typename T>
  HOST_DEVICE void Finish(const T* params, const double* dp, T* dparams) const {
    plain.Finish(params, dp, dparams);
  }

  template <typename R>
  HOST_DEVICE auto Usual(const R* p, R x) const {
    const auto usual = !(Abs(x) > p[count()]);
    if constexpr (kVersion == 'N') {
      // However the noise moves Q, it stays away from its poles, as Rational wants it.
      R most = R(0.0);
      for (int k = plain.b() - 1; k >= 0; --k) most = most * Abs(x) + Abs(p[plain.a() + k]);
      most = R(noise) * (most * Abs(x));
      return usual & !(Abs(plain.Outer(plain.Inner(p, x))) - most < R(0x1p-20));
    } else {
      return usual;
    }
  }

  template <typename R>
  HOST_DEVICE R Forward(const R* p, R x, Place place) const {
    R noisy[kMaxPrepared];
    AddNoise(p, place, noisy);
    MakePositive(noisy);
    return plain.Forward(noisy, x, place);
  }

  template <typename R>
  HOST_DEVICE R Backward(const R* p, R x, R dy, R* dp, Place place) const {
    R noisy[kMaxPrepared];
    AddNoise(p, place, noisy);
    if constexpr (!kFlips) {
      return plain.Backward(noisy, x, dy, dp, place);
    } else {
      R positive[kMaxPrepared], share[kMaxPrepared];
      for (int k = 0; k < count(); ++k) {
        positive[k] = noisy[k];
        share[k] = R(0.0);
      }
      MakePositive(positive);
      const R dx = plain.Backward(positive, x, dy, share, place);
      for (int k = 0; k < count(); ++k) {
        dp[k] += k >= plain.a() ? Select(noisy[k] < R(0.0), -share[k], share[k]) : share[k];
      }
      return dx;
    }
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulForward(const T* p, T x, Place place) const {
    Wide noisy[kMaxPrepared];
    AddNoise(p, place, noisy);
    MakePositive(noisy);
    return plain.WideForward(noisy, x);
  }

  template <typename T>
  NOINLINE_HOST_DEVICE T CarefulBackward(const T* p, T x, T dy, double* dp, Place place) const {
    Wide noisy[kMaxPrepared] = {}, positive[kMaxPrepared] = {};
    AddNoise(p, place, noisy);
    for (int k = 0; k < count(); ++k) positive[k] = noisy[k];
    MakePositive(positive);
    double share[kMaxPrepared] = {};
    const T dx = plain.WideBackward(positive, x, dy, share, place);
    for (int k = 0; k < count(); ++k) {
      dp[k] += kFlips && k >= plain.a() && noisy[k] < Wide(0.0) ? -share[k] : share[k];
    }
    return dx;
  }

 private:
  template <typename R>
  HOST_DEVICE void MakePositive(R* noisy) const {
    if constexpr (kFlips) {
      for (int k = plain.a(); k < count(); ++k) noisy[k] = Abs(noisy[k]);
    }
  }

  // f(k, draw k), with the draws of Philox.
  template <typename R, typename F>
  HOST_DEVICE void ForDraws(Place place, const F& f) const {
    for (int first = 0; first < count(); first += kDrawsPerBlock) {
      R draws[kDrawsPerBlock];
      Draw(place, static_cast<uint32_t>(first / kDrawsPerBlock), draws);
      const int here = count() - first < kDrawsPerBlock ? count() - first : kDrawsPerBlock;
      for (int k = 0; k < here; ++k) f(first + k, draws[k]);
    }
  }

  // u = (2 n + 1) / 4096 − 1 = 2 (1 + n / 4096) − (3 − 1 / 4096).
  template <typename R>
  HOST_DEVICE void AddNoise(const R* p, Place place, R* noisy) const {
    const R constant = R(1 - noise * (3 - 1.0 / 4096)), slope = R(2 * noise);
    ForDraws<R>(place, [&](int k, R draw) { noisy[k] = p[k] * (constant + slope * draw); });
  }
  template <typename T>
  HOST_DEVICE void AddNoise(const T* p, Place place, Wide* noisy) const {
    ForDraws<double>(place, [&](int k, double draw) {
      noisy[k] = Wide(p[k]) * Wide(1 + noise * (2 * draw - (3 - 1.0 / 4096)));
    });
  }
};

struct RandomizedRational {
  static constexpr char kName[] = "RandomizedRational";
  static constexpr bool kRandom = true;

  struct Settings {
    Rational::Settings plain;
    double noise;
  };

  static bool Parse(const Call& call, Settings* settings, Error* error) {
    // More would need wider numbers than a coefficient's own.
    constexpr double most = 1e6;
    if (call.num_settings != 3) {
      return error->Say("%s: settings must be [number of numerator coefficients, version, bits of "
                        "noise]. Received: %lld numbers", kName,
                        static_cast<long long>(call.num_settings));
    }
    memcpy(&settings->noise, call.settings + 2, sizeof(settings->noise));
    if (!(settings->noise >= 0 && settings->noise <= most)) {
      return error->Say("%s: noise must be between 0 and %g. Received: %g", kName, most,
                        settings->noise);
    }
    Call plain = call;
    plain.num_settings = 2;
    return Rational::Parse(plain, &settings->plain, error);
  }

  template <char kVersion, typename F>
  static void SpecializeVersion(const Settings& s, const F& f) {
    constexpr int kB = kVersion == 'C' ? 5 : 4;
    const int a = s.plain.num_a, b = s.plain.num_b;
    if (a == 6 && b == kB && s.noise <= 1) {
      f(RandomizedRationalFormula<kVersion, 6, kB>{{a, b}, s.noise});
    } else {
      f(RandomizedRationalFormula<kVersion, 0, 0>{{a, b}, s.noise});
    }
  }

  template <typename F>
  static void Specialize(const Settings& s, const F& f) {
    if (s.plain.version == 'A') {
      SpecializeVersion<'A'>(s, f);
    } else if (s.plain.version == 'B') {
      SpecializeVersion<'B'>(s, f);
    } else if (s.plain.version == 'C') {
      SpecializeVersion<'C'>(s, f);
    } else {
      SpecializeVersion<'N'>(s, f);
    }
  }
};

}  // namespace keras_learnact::KLA_TARGET

#endif  // KERAS_LEARNACT_KERNELS_RANDOMIZED_RATIONAL_H_
