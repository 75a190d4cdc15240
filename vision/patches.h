// From pixels to what the vision tower reads: normalised patches, one a row.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "vision/image.h"

namespace ocelli::vision {

// value = (float32(pixel * rescale) - mean) / deviation, in float32, a mean and a deviation for
// each of red, green and blue. The defaults are SigLIP's; source: SiglipImageProcessor.
struct Normalization {
  double rescale = 0.00392156862745098;  // 1/255 as the reference's files write it
  std::array<float, 3> mean = {0.5F, 0.5F, 0.5F};
  std::array<float, 3> deviation = {0.5F, 0.5F, 0.5F};
};

// How many whole patches of patch x patch pixels the image holds; what is left over at the right
// and at the bottom is unused.
int patch_count(const Image& image, int patch);

// Fills out[patch_count][3 * patch * patch]: patches row by row from the top left; within one the
// order (channel, y, x), that of the convolution weight [out, 3, patch, patch] flattened, so that
// the patch embedding is a matrix product. `out` must have just that size.
void write_patches(const Image& image, int patch, const Normalization& normalization,
                   std::span<float> out);

// write_patches into a vector of the right size.
std::vector<float> make_patches(const Image& image, int patch,
                                const Normalization& normalization = {});

// The image centred on a square of its longer side, as `image_aspect_ratio: "pad"` asks; an odd
// remainder goes to the right or the bottom. The reference's background is int(255 * mean).
Image expand_to_square(const Image& image, const std::array<uint8_t, 3>& background);

}  // namespace ocelli::vision
