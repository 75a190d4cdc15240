// Scaling pictures exactly as Pillow does, to the last bit.
#pragma once

#include "vision/image.h"

namespace ocelli::vision {

// The whole image stretched to width x height (both positive, else a bug) with bicubic filtering:
// byte for byte what Pillow's Image.resize((width, height), Image.BICUBIC) gives. Its rules: a =
// -0.5, the kernel widened by the scale when shrinking, the horizontal pass first, 22-bit
// fixed-point weights, 8-bit rounding after each pass, and no pass where the size stays.
Image resize_bicubic(const Image& image, int width, int height);

}  // namespace ocelli::vision
