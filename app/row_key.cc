#include "app/row_key.h"

#include <array>

#include "app/weights_identity.h"
#include "host/error.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::app {

host::Sha256Digest tower_hash(const OpenedModel& model, const PipelineOptions& options) {
  const VisionConfig& vision = *model.config.vision;
  const vision::SiglipConfig& siglip = vision.siglip;
  const kernels::BackendOptions& backend = options.backend;
  const nlohmann::json weights =
      weights_identity(model, vision.tower_prefix, options.backend.threads);
  OCELLI_CHECK(!weights.empty(), "no weights begin with {}", vision.tower_prefix);
  const bool on_cpu = backend.name == "cpu";
  const nlohmann::json identity = {
      {"program", OCELLI_VERSION},
      {"backend", backend.name},
      {"isa", on_cpu ? kernels::cpu::select_table(backend.isa).isa : ""},
      {"int8", options.pack ? options.pack->group : -1},
      {"hidden_size", siglip.hidden_size},
      {"intermediate_size", siglip.intermediate_size},
      {"heads", siglip.num_attention_heads},
      {"image_size", siglip.image_size},
      {"patch_size", siglip.patch_size},
      {"layer_norm_eps", siglip.layer_norm_eps},
      {"blocks", siglip.blocks},
      {"first_row", vision.first_row},
      {"weights", weights}};
  return host::sha256(identity.dump());
}

RowKey row_key(const host::Sha256Digest& tower, const vision::Image& preprocessed) {
  const std::array<int32_t, 2> dimensions = {preprocessed.width, preprocessed.height};
  host::Sha256 hash;
  hash.add(std::as_bytes(std::span(tower)));
  hash.add(std::as_bytes(std::span(dimensions)));
  hash.add(std::as_bytes(std::span(preprocessed.rgb)));
  return hash.digest();
}

}  // namespace ocelli::app
