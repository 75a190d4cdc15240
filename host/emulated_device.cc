#include "host/emulated_device.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "host/error.h"

namespace ocelli::host {
namespace {

// Every bit set is NaN in fp32, fp16 and bf16.
constexpr std::byte kPoison{0xFF};

class EmulatedDevice : public Device {
 public:
  EmulatedDevice(EmulatedDeviceConfig config, std::map<std::string, Kernel, std::less<>> kernels)
      : config_(std::move(config)), kernels_(std::move(kernels)), used_(config_.banks) {}

  std::string name() const override { return config_.name; }
  int banks() const override { return config_.banks; }
  int64_t bank_bytes() const override { return config_.bank_bytes; }
  int64_t free_bytes(int bank) const override {
    if (bank < 0 || bank >= config_.banks) {
      fail("{}: there is no bank {}: it has {}", config_.name, bank, config_.banks);
    }
    return config_.bank_bytes - used_[bank];
  }

  BufferId allocate(int64_t bytes, int bank) override {
    if (bytes <= 0 || bytes > free_bytes(bank)) {
      fail("{}: {} bytes do not fit bank {}, of whose {} bytes {} are free", config_.name, bytes,
           bank, config_.bank_bytes, free_bytes(bank));
    }
    const BufferId id{++last_id_};
    buffers_.emplace(id.value, Buffer{bank, std::vector<std::byte>(bytes, kPoison)});
    used_[bank] += bytes;
    return id;
  }

  void release(BufferId buffer) noexcept override {
    const auto found = buffers_.find(buffer.value);
    if (found == buffers_.end()) return;
    used_[found->second.bank] -= static_cast<int64_t>(found->second.bytes.size());
    buffers_.erase(found);
  }

  void write(BufferId buffer, int64_t offset, std::span<const std::byte> source) override {
    std::ranges::copy(source, range(buffer, offset, source.size()).begin());
  }

  void read(BufferId buffer, int64_t offset, std::span<std::byte> target) override {
    std::ranges::copy(range(buffer, offset, target.size()), target.begin());
  }

  void launch(std::string_view kernel, std::span<const Argument> arguments) override {
    const auto found = kernels_.find(kernel);
    if (found == kernels_.end()) fail("{}: there is no kernel '{}'", config_.name, kernel);
    for (const Argument& argument : arguments) resolve(argument);
    queue_.push_back({&found->second, {arguments.begin(), arguments.end()}});
  }

  void wait() override {
    const std::vector<Launch> launches = std::exchange(queue_, {});
    std::vector<KernelArgument> arguments;
    for (const Launch& launch : launches) {
      arguments.clear();
      for (const Argument& argument : launch.arguments) arguments.push_back(resolve(argument));
      (*launch.kernel)(arguments);
    }
  }

 private:
  struct Buffer {
    int bank;
    std::vector<std::byte> bytes;
  };
  struct Launch {
    const Kernel* kernel;
    std::vector<Argument> arguments;
  };

  std::span<std::byte> range(BufferId buffer, int64_t offset, size_t bytes) {
    const auto found = buffers_.find(buffer.value);
    if (found == buffers_.end()) fail("{}: buffer {} was released", config_.name, buffer.value);
    const size_t size = found->second.bytes.size();
    if (offset < 0 || static_cast<size_t>(offset) > size || bytes > size - offset) {
      fail("{}: {} bytes at {} lie outside a buffer of {}", config_.name, bytes, offset, size);
    }
    return std::span(found->second.bytes).subspan(offset, bytes);
  }

  KernelArgument resolve(const Argument& argument) {
    if (const auto* memory = std::get_if<BufferArgument>(&argument)) {
      const std::span<std::byte> rest = range(memory->buffer, memory->offset, 0);
      const auto& bytes = buffers_.at(memory->buffer.value).bytes;
      return std::span(rest.data(), bytes.size() - memory->offset);
    }
    if (const auto* integer = std::get_if<int64_t>(&argument)) return *integer;
    return std::get<double>(argument);
  }

  EmulatedDeviceConfig config_;
  std::map<std::string, Kernel, std::less<>> kernels_;
  std::unordered_map<uint64_t, Buffer> buffers_;
  std::vector<int64_t> used_;
  std::vector<Launch> queue_;
  uint64_t last_id_ = 0;
};

}  // namespace

EmulatedDeviceConfig u280_config() {
  return {"u280-emulated", 32, int64_t{256} << 20};
}

std::unique_ptr<Device> make_emulated_device(EmulatedDeviceConfig config,
                                             std::map<std::string, Kernel, std::less<>> kernels) {
  return std::make_unique<EmulatedDevice>(std::move(config), std::move(kernels));
}

}  // namespace ocelli::host
