// The connector: vision features in, rows of the decoder's embedding space out.
//
// TinyLLaVA's `mlpNx_gelu`: N linear layers with the exact (erf) GELU between them; `linear` is one
// layer, `identity` none.
#pragma once

#include <string>
#include <vector>

#include "kernels/checkpoint.h"
#include "kernels/ops.h"

namespace ocelli::connector {

struct MlpConfig {
  int depth = 2;        // linear layers; 0 passes the features on
  int vision_size = 0;  // features in
  int text_size = 0;    // features out

  // From `connector_type`. Throws host::Error that names a type that is not supported.
  static MlpConfig parse(const std::string& connector_type, int vision_size, int text_size);
};

struct MlpWeights {
  std::vector<kernels::LinearSource> layers;  // [text, vision], then [text, text]

  // Asks `reader` for `prefix` + "0.weight", "0.bias", "2.weight", …: the GELUs take a number each
  // in the reference's nn.Sequential. A lone `linear` connector has no number. `prefix` ends in a
  // dot.
  static MlpWeights read(kernels::TensorReader& reader, const std::string& prefix,
                         const MlpConfig& config);
};

class Mlp {
 public:
  // Loads the weights and allocates for `max_rows` rows; `ops` and the weights' memory must outlive
  // this.
  Mlp(kernels::Ops& ops, const MlpConfig& config, const MlpWeights& weights, int max_rows);

  const MlpConfig& config() const { return config_; }

  // features: [rows, vision_size], at most max_rows. Returns [rows, text_size], valid until the
  // next call (an identity connector returns its argument).
  kernels::Tensor forward(const kernels::Tensor& features);

 private:
  kernels::Ops& ops_;
  MlpConfig config_;
  std::vector<kernels::Linear> layers_;
  kernels::Tensor buffers_[2];  // [max_rows, text_size], used in turn
};

}  // namespace ocelli::connector
