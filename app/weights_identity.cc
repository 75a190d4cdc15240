#include "app/weights_identity.h"

#include <vector>

#include "host/thread_pool.h"
#include "kernels/packed_file.h"

namespace ocelli::app {

nlohmann::json weights_identity(const OpenedModel& model, const std::string& prefix, int threads) {
  nlohmann::json weights = nlohmann::json::object();
  if (const kernels::PackedContents* packed = model.checkpoint.packed()) {
    for (const auto& part : packed->checked) {
      // The header's checksum, without a name, changes with the place it was made from.
      if (!part.name.empty() && part.name.starts_with(prefix)) weights[part.name] = part.checksum;
    }
    return weights;
  }
  std::vector<const kernels::HostTensor*> tensors;
  for (const auto& [name, tensor] : model.checkpoint.tensors()) {
    if (name.starts_with(prefix)) tensors.push_back(&tensor);
  }
  std::vector<uint64_t> sums(tensors.size());
  host::ThreadPool pool(threads > 0 ? threads : host::available_processors());
  pool.parallel_for(static_cast<int>(tensors.size()), [&](int i, int) {
    const auto bytes = static_cast<size_t>(tensors[i]->bytes());
    sums[i] = kernels::checksum_of({tensors[i]->data, bytes});
  });
  for (size_t i = 0; i < tensors.size(); ++i) {
    weights[tensors[i]->name] = {sums[i], kernels::name(tensors[i]->dtype), tensors[i]->shape};
  }
  return weights;
}

}  // namespace ocelli::app
