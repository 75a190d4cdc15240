#include "kernels/backend.h"

#include <fmt/ranges.h>

#include "host/emulated_device.h"
#include "host/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/device/device_ops.h"
#include "kernels/device/kernel_set.h"
#include "kernels/reference/reference_ops.h"

namespace ocelli::kernels {

const std::vector<std::string>& backend_names() {
  static const std::vector<std::string> names = {"cpu", "reference", "u280-emulated"};
  return names;
}

std::unique_ptr<Ops> make_backend(const BackendOptions& options) {
  if (options.name == "cpu") return make_cpu_ops({options.threads, options.isa});
  if (options.name == "reference") return make_reference_ops();
  if (options.name == "u280-emulated") {
    return make_device_ops(host::make_emulated_device(host::u280_config(), emulated_kernels()));
  }
  host::fail("there is no backend '{}': choose one of {}", host::printable(options.name),
             fmt::join(backend_names(), ", "));
}

}  // namespace ocelli::kernels
