#include "vision/resize.h"

#include <algorithm>
#include <cmath>

#include "host/error.h"

namespace ocelli::vision {
namespace {

// Weights are integers times 2^-22.
constexpr int kPrecisionBits = 22;
constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);

// A weight is high * 2^11 + low, low in 0..2047: two 16-bit numbers whose products with pixels
// are exact in 32-bit sums, which compilers turn into the multiply-add that every CPU has.
constexpr int kLowBits = 11;
constexpr int32_t kLowMask = (1 << kLowBits) - 1;

// As many taps as keep a sum of 255 * 2047 a tap within 31 bits.
constexpr int kMaxTapsAtOnce = 4096;

// Windows are padded to a multiple of this with taps of weight 0, so that vectors need no
// remainder.
constexpr int kLanes = 8;

// The pixels that one output pixel is made of, and where their weights begin.
struct Window {
  int first = 0;
  int taps = 0;    // without the padding
  int padded = 0;  // with it
  size_t weights = 0;
};

// What one pass does to one axis.
struct Plan {
  std::vector<Window> windows;  // one an output pixel
  std::vector<int16_t> high;    // the weights of all windows, one after the other
  std::vector<int16_t> low;
};

// Keys' cubic with a = -0.5, in the very order of operations of Pillow's.
double cubic(double x) {
  constexpr double kA = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0.0;
}

Plan make_plan(int in_size, int out_size) {
  const double scale = static_cast<double>(in_size) / out_size;
  const double stretch = std::max(scale, 1.0);
  const double support = 2.0 * stretch;
  const double shrink = 1.0 / stretch;
  Plan plan;
  plan.windows.reserve(static_cast<size_t>(out_size));
  std::vector<double> weights;
  for (int out = 0; out < out_size; ++out) {
    const double center = (out + 0.5) * scale;
    // Pillow's rounding: half is added and the rest cut off.
    // NOLINTBEGIN(bugprone-incorrect-roundings)
    const int first = std::max(0, static_cast<int>(center - support + 0.5));
    const int end = std::min(in_size, static_cast<int>(center + support + 0.5));
    // NOLINTEND(bugprone-incorrect-roundings)
    weights.assign(static_cast<size_t>(end - first), 0.0);
    double sum = 0.0;
    for (int i = first; i < end; ++i) {
      const double weight = cubic((i - center + 0.5) * shrink);
      weights[static_cast<size_t>(i - first)] = weight;
      sum += weight;
    }
    const int padded = (end - first + kLanes - 1) / kLanes * kLanes;
    plan.windows.push_back({first, end - first, padded, plan.high.size()});
    for (double weight : weights) {
      if (sum != 0.0) weight /= sum;
      const double scaled = weight * (1 << kPrecisionBits);
      const auto fixed = static_cast<int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
      plan.high.push_back(static_cast<int16_t>(fixed >> kLowBits));
      plan.low.push_back(static_cast<int16_t>(fixed & kLowMask));
    }
    plan.high.resize(plan.windows.back().weights + static_cast<size_t>(padded), 0);
    plan.low.resize(plan.high.size(), 0);
  }
  return plan;
}

uint8_t round_pixel(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
}

// A row of pixels, each channel by itself and padded with kLanes that no weight counts.
struct Planes {
  explicit Planes(int width) : stride(static_cast<size_t>(width) + kLanes), samples(stride * 3) {}

  void fill(const uint8_t* rgb) {
    int16_t* red = samples.data();
    int16_t* green = red + stride;
    int16_t* blue = green + stride;
    for (size_t x = 0; x < stride - kLanes; ++x) {
      red[x] = rgb[x * 3];
      green[x] = rgb[x * 3 + 1];
      blue[x] = rgb[x * 3 + 2];
    }
  }

  size_t stride;
  std::vector<int16_t> samples;
};

// A weighted sum of each channel. What is wanted always fits 32 bits; its parts may wrap.
struct Sums {
  uint32_t red = kHalf;
  uint32_t green = kHalf;
  uint32_t blue = kHalf;

  // blocks * kLanes taps: one loop over all channels, so that each weight is read once.
  void add(const int16_t* high, const int16_t* low, const int16_t* pixels, size_t stride,
           int blocks) {
    const int16_t* greens = pixels + stride;
    const int16_t* blues = greens + stride;
    int32_t high_red = 0;
    int32_t high_green = 0;
    int32_t high_blue = 0;
    int32_t low_red = 0;
    int32_t low_green = 0;
    int32_t low_blue = 0;
    for (int i = 0; i < blocks * kLanes; ++i) {
      high_red += static_cast<int32_t>(high[i]) * pixels[i];
      low_red += static_cast<int32_t>(low[i]) * pixels[i];
      high_green += static_cast<int32_t>(high[i]) * greens[i];
      low_green += static_cast<int32_t>(low[i]) * greens[i];
      high_blue += static_cast<int32_t>(high[i]) * blues[i];
      low_blue += static_cast<int32_t>(low[i]) * blues[i];
    }
    red += joined(high_red, low_red);
    green += joined(high_green, low_green);
    blue += joined(high_blue, low_blue);
  }

  static uint32_t joined(int32_t high, int32_t low) {
    return (static_cast<uint32_t>(high) << kLowBits) + static_cast<uint32_t>(low);
  }
};

void filter(const Plan& plan, const Window& window, const Planes& planes, uint8_t* rgb) {
  const int16_t* high = plan.high.data() + window.weights;
  const int16_t* low = plan.low.data() + window.weights;
  const int16_t* pixels = planes.samples.data() + window.first;
  Sums sums;
  for (int done = 0; done < window.padded; done += kMaxTapsAtOnce) {
    const int blocks = std::min(kMaxTapsAtOnce, window.padded - done) / kLanes;
    sums.add(high + done, low + done, pixels + done, planes.stride, blocks);
  }
  rgb[0] = round_pixel(static_cast<int32_t>(sums.red));
  rgb[1] = round_pixel(static_cast<int32_t>(sums.green));
  rgb[2] = round_pixel(static_cast<int32_t>(sums.blue));
}

Image resize_rows(const Image& image, int width) {
  const Plan plan = make_plan(image.width, width);
  Image out{width, image.height, {}};
  out.rgb.resize(static_cast<size_t>(width) * image.height * 3);
  Planes planes(image.width);
  const uint8_t* in = image.rgb.data();
  uint8_t* pixel = out.rgb.data();
  for (int y = 0; y < image.height; ++y, in += static_cast<size_t>(image.width) * 3) {
    planes.fill(in);
    for (const Window& window : plan.windows) {
      filter(plan, window, planes, pixel);
      pixel += 3;
    }
  }
  return out;
}

Image resize_columns(const Image& image, int height) {
  const Plan plan = make_plan(image.height, height);
  const size_t stride = static_cast<size_t>(image.width) * 3;
  Image out{image.width, height, {}};
  out.rgb.resize(stride * static_cast<size_t>(height));
  std::vector<int32_t> sums(stride);
  uint8_t* row = out.rgb.data();
  for (const Window& window : plan.windows) {
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int tap = 0; tap < window.taps; ++tap) {
      const size_t at = window.weights + static_cast<size_t>(tap);
      const int32_t weight = plan.high[at] * (1 << kLowBits) + plan.low[at];
      const uint8_t* in = image.rgb.data() + static_cast<size_t>(window.first + tap) * stride;
      for (size_t i = 0; i < stride; ++i) sums[i] += weight * in[i];
    }
    for (size_t i = 0; i < stride; ++i) *row++ = round_pixel(sums[i]);
  }
  return out;
}

}  // namespace

Image resize_bicubic(const Image& image, int width, int height) {
  OCELLI_CHECK(width > 0 && height > 0, "{} x {}", width, height);
  OCELLI_CHECK(image.width > 0 && image.height > 0, "{} x {}", image.width, image.height);
  if (width == image.width && height == image.height) return image;
  if (width == image.width) return resize_columns(image, height);
  Image wide = resize_rows(image, width);
  return height == wide.height ? wide : resize_columns(wide, height);
}

}  // namespace ocelli::vision
