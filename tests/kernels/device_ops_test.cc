// DeviceOps: where it places what, what it does when memory or the device fails.
#include "kernels/device/device_ops.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "kernels/device/kernel_set.h"
#include "tests/host/expect_error.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

using host::Argument;
using host::BufferId;

// What a watched device has seen, for the test to look at; it outlives the device.
struct Record {
  std::map<uint64_t, int> bank_of;      // live buffers
  std::map<std::string, int> launches;  // by kernel
  int calls = 0;
  int fail_at = -1;  // the call that throws, counted from 0; -1: none
};

// An emulated device that keeps a record and can be told to fail.
class WatchedDevice : public host::Device {
 public:
  WatchedDevice(host::EmulatedDeviceConfig config, Record& record)
      : inner_(host::make_emulated_device(std::move(config), emulated_kernels())),
        record_(record) {}

  std::string name() const override { return inner_->name(); }
  int banks() const override { return inner_->banks(); }
  int64_t bank_bytes() const override { return inner_->bank_bytes(); }
  int64_t free_bytes(int bank) const override { return inner_->free_bytes(bank); }
  BufferId allocate(int64_t bytes, int bank) override {
    call("allocate");
    const BufferId id = inner_->allocate(bytes, bank);
    record_.bank_of[id.value] = bank;
    return id;
  }
  void release(BufferId buffer) noexcept override {
    record_.bank_of.erase(buffer.value);
    inner_->release(buffer);
  }
  void write(BufferId buffer, int64_t offset, std::span<const std::byte> source) override {
    call("write");
    inner_->write(buffer, offset, source);
  }
  void read(BufferId buffer, int64_t offset, std::span<std::byte> target) override {
    call("read");
    inner_->read(buffer, offset, target);
  }
  void launch(std::string_view kernel, std::span<const Argument> arguments) override {
    call("launch");
    ++record_.launches[std::string(kernel)];
    inner_->launch(kernel, arguments);
  }
  void wait() override {
    call("wait");
    inner_->wait();
  }

 private:
  void call(const char* what) {
    if (record_.calls++ == record_.fail_at) host::fail("injected fault in {}", what);
  }

  std::unique_ptr<host::Device> inner_;
  Record& record_;
};

std::unique_ptr<Ops> watched(int banks, int64_t bank_bytes, Record& record) {
  return make_device_ops(std::make_unique<WatchedDevice>(
      host::EmulatedDeviceConfig{"tiny", banks, bank_bytes}, record));
}

std::set<int> banks_of(const Record& record) {
  std::set<int> banks;
  for (const auto& [id, bank] : record.bank_of) banks.insert(bank);
  return banks;
}

// x's product with a matrix that nothing holds afterwards.
Matrix product(Ops& ops, const LinearSource& source, const Matrix& x) {
  const Linear linear = ops.load_linear(source);
  const Tensor input = ops.tensor(x.rows, x.cols, DType::kF32, Placement::kActivation);
  const Tensor out = ops.tensor(x.rows, linear->outputs, DType::kF32, Placement::kActivation);
  ops.write(x.values, input);
  ops.linear(input, linear, out, Epilogue::kStore);
  Matrix result(x.rows, linear->outputs);
  ops.read(out, result.values);
  return result;
}

TEST(DeviceOps, SplitsAMatrixThatNoBankHolds) {
  Random random(61);
  Record record;
  // 50 rows of 28 bytes into banks of 400: at least four pieces.
  const std::unique_ptr<Ops> ops = watched(6, 400, record);
  const std::unique_ptr<Ops> reference = make_backend({"reference", 1, ""});
  const auto weight = store(random.matrix(50, 7), DType::kF32);
  const auto bias = store_vector(random.matrix(1, 50), DType::kF16);
  const LinearSource source = {{weight->tensor()}, {bias->tensor()}};
  const Matrix x = random.matrix(1, 7);
  expect_same_bits(product(*ops, source, x), product(*reference, source, x));
  EXPECT_GE(record.launches["linear"], 4);
  EXPECT_TRUE(record.bank_of.empty()) << "released with their tensors";
}

TEST(DeviceOps, SplitsAQuantisedMatrixWithItsScales) {
  Random random(62);
  Record record;
  // 50 rows of 16 bytes and four scales into banks of 400.
  const std::unique_ptr<Ops> ops = watched(9, 400, record);
  const std::unique_ptr<Ops> reference = make_backend({"reference", 1, ""});
  const StoredInt8 weight(random_int8(random, 50, 16, 4));
  const Matrix x = random.matrix(1, 16);
  const LinearSource source = {{weight.tensor()}, {}};
  expect_same_bits(product(*ops, source, x), product(*reference, source, x));
  EXPECT_GE(record.launches["linear_int8"], 4);
  EXPECT_TRUE(record.bank_of.empty()) << "released with their tensors";
}

TEST(DeviceOps, OneRowAPieceIsTheFinestSplit) {
  Random random(62);
  Record record;
  const std::unique_ptr<Ops> ops = watched(6, 40, record);
  const auto weight = store(random.matrix(3, 9), DType::kF32);  // a row of 36 bytes fills a bank
  const Linear linear = ops->load_linear({{weight->tensor()}, {}});
  EXPECT_EQ(banks_of(record).size(), 3U);
  const auto wide = store(random.matrix(2, 11), DType::kF32);  // a row of 44 bytes fits none
  const std::string message = error_of([&] { ops->load_linear({{wide->tensor()}, {}}); });
  EXPECT_TRUE(holds(message, "44 bytes do not fit bank"));
  EXPECT_TRUE(holds(message, "of whose 40 bytes 40 are free"));
}

TEST(DeviceOps, KeysAndValuesStandInDifferentBanks) {
  Record record;
  const std::unique_ptr<Ops> ops = watched(8, 1000, record);
  std::vector<Tensor> keys;
  std::vector<Tensor> values;
  std::set<int> key_banks;
  for (int layer = 0; layer < 6; ++layer) {
    keys.push_back(ops->tensor(10, 10, DType::kF32, Placement::kKeys));
    for (const int bank : banks_of(record)) key_banks.insert(bank);
  }
  EXPECT_EQ(key_banks.size(), 3U) << "two of 400 bytes fit a bank of 1000";
  for (int layer = 0; layer < 6; ++layer) {
    values.push_back(ops->tensor(10, 10, DType::kF32, Placement::kValues));
  }
  EXPECT_EQ(banks_of(record).size(), 6U) << "no bank holds both";
}

TEST(DeviceOps, SpreadsWeightsOverTheBanks) {
  Random random(63);
  Record record;
  const std::unique_ptr<Ops> ops = watched(4, 10'000, record);
  const auto weight = store(random.matrix(10, 10), DType::kF32);
  std::vector<Linear> linears;
  for (int i = 0; i < 4; ++i) linears.push_back(ops->load_linear({{weight->tensor()}, {}}));
  EXPECT_EQ(banks_of(record).size(), 4U);
}

TEST(DeviceOps, ExhaustionIsAnErrorWithNumbersAndLeaksNothing) {
  Record record;
  const std::unique_ptr<Ops> ops = watched(2, 1000, record);
  {
    std::vector<Tensor> held;
    const std::string message = error_of([&] {
      while (true) held.push_back(ops->tensor(5, 20, DType::kF32, Placement::kActivation));
    });
    EXPECT_EQ(held.size(), 4U);
    EXPECT_TRUE(holds(message, "tiny"));
    EXPECT_TRUE(holds(message, "400 bytes do not fit bank"));
    EXPECT_TRUE(holds(message, "of whose 1000 bytes 200 are free"));
  }
  EXPECT_TRUE(record.bank_of.empty());
  EXPECT_NO_THROW(ops->tensor(5, 50, DType::kF32, Placement::kActivation)) << "all is free again";
  Random random(64);
  const auto big = store(random.matrix(100, 10), DType::kF32);  // 4000 bytes, in pieces
  error_of([&] { ops->load_linear({{big->tensor()}, {}}); });
  EXPECT_TRUE(record.bank_of.empty()) << "the pieces that did fit are released";
}

// Everything a model does, in small.
void work(Ops& ops) {
  Random random(65);
  const auto weight = store(random.matrix(8, 8), DType::kF32);
  const auto vector = store_vector(random.matrix(1, 8), DType::kF32);
  const Linear linear = ops.load_linear({{weight->tensor()}, {vector->tensor()}});
  const Tensor table = ops.load(weight->tensor());
  const Tensor row = ops.load(vector->tensor());
  const Norm norm = {row, row, 1e-5F};
  const Tensor x = ops.tensor(3, 8, DType::kF32, Placement::kActivation);
  const Tensor h = ops.tensor(3, 8, DType::kF32, Placement::kActivation);
  const Tensor keys = ops.tensor(10, 4, DType::kF16, Placement::kKeys);
  const Tensor values = ops.tensor(10, 4, DType::kF16, Placement::kValues);
  const std::vector<Segment> segments = {{0, 0, 3, 0}};
  const AttentionShape shape = {
      .heads = 2, .kv_heads = 2, .head_dim = 4, .scale = 0.5F, .causal = true, .capacity = 5};
  for (int step = 0; step < 2; ++step) {
    ops.embed(table, std::vector<int32_t>{7, 0, 3}, x);
    ops.layer_norm(x, norm, h);
    ops.rms_norm(h, norm, h);
    ops.rope(h, 4, row.column_range(0, 4), std::vector<Segment>{{0, 0, 1, 0}});
    ops.append(h, keys, 5, segments);
    ops.append(h, values, 5, segments);
    ops.attention(h, keys, values, shape, segments, x);
    ops.add(row, x);
    run_mlp(ops, x, {linear, nullptr, linear, Epilogue::kSilu}, h, x);
    std::vector<float> result(24);
    ops.read(x, result);
    for (const float value : result) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST(DeviceOps, AFaultAnywhereIsAnErrorAndLeaksNothing) {
  int faults = 0;
  for (int call = 0;; ++call) {
    Record record;
    record.fail_at = call;
    {
      const std::unique_ptr<Ops> ops = watched(4, 10'000, record);
      try {
        work(*ops);
      } catch (const host::Error& error) {
        EXPECT_TRUE(holds(error.what(), "injected fault"));
        ++faults;
      }
    }
    EXPECT_TRUE(record.bank_of.empty()) << "after call " << call;
    if (record.calls <= call) break;  // it ran to its end before the fault was due
  }
  EXPECT_GT(faults, 40);
}

// A tensor may be dropped while launches that use it are queued: its memory must last as long.
TEST(DeviceOps, ATensorOutlivesTheLaunchesThatUseIt) {
  Record record;
  const std::unique_ptr<Ops> ops = watched(2, 10'000, record);
  const Tensor out = ops->tensor(1, 4, DType::kF32, Placement::kActivation);
  ops->write(std::vector<float>{1, 2, 3, 4}, out);
  {
    const Tensor x = ops->tensor(1, 4, DType::kF32, Placement::kActivation);
    ops->write(std::vector<float>{10, 20, 30, 40}, x);
    ops->add(x, out);
  }
  std::vector<float> found(4);
  ops->read(out, found);
  EXPECT_EQ(found, (std::vector<float>{11, 22, 33, 44}));
}

// What is read or written while launches are queued must be what they leave or find.
TEST(DeviceOps, ReadsAndWritesKeepTheirPlaceAmongLaunches) {
  Record record;
  const std::unique_ptr<Ops> ops = watched(2, 10'000, record);
  const Tensor x = ops->tensor(1, 2, DType::kF32, Placement::kActivation);
  const Tensor out = ops->tensor(1, 2, DType::kF32, Placement::kActivation);
  ops->write(std::vector<float>{0, 0}, out);
  for (const float value : {1.0F, 10.0F, 100.0F}) {
    ops->write(std::vector<float>{value, 2 * value}, x);  // the last add() has not run yet
    ops->add(x, out);
  }
  std::vector<float> found(2);
  ops->read(out, found);
  EXPECT_EQ(found, (std::vector<float>{111, 222}));
}

}  // namespace
}  // namespace ocelli::kernels
