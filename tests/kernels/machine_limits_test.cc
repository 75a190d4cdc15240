// What is measured of the machine: that every loop runs on it, and that reading reads everything.
#include "kernels/cpu/machine_limits.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "kernels/cpu/isa/limits.h"
#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels {
namespace {

TEST(MachineLimits, EveryInstructionSetHasLimits) {
  for (const cpu::KernelTable* table : cpu::supported_tables()) {
    LimitMeter meter(2, table->isa, 1 << 20);
    meter.measure();
    EXPECT_EQ(meter.isa(), table->isa);
    EXPECT_EQ(meter.threads(), 2);
    EXPECT_GT(meter.limits().read_bytes, 0) << table->isa;
    EXPECT_GT(meter.limits().f32_ops, 0) << table->isa;
    const std::set<std::string> vector_sets = {"avx2", "avxvnni", "avx512", "amx", "amx-emulated"};
    EXPECT_EQ(meter.limits().int8_ops.has_value(), vector_sets.contains(table->isa)) << table->isa;
  }
}

TEST(MachineLimits, WhatWasMeasuredBeforeStaysWhereItWasLarger) {
  LimitMeter meter(1, "", 1 << 20);
  meter.measure();
  const MachineLimits first = meter.limits();
  meter.measure();
  EXPECT_GE(meter.limits().read_bytes, first.read_bytes);
  EXPECT_GE(meter.limits().f32_ops, first.f32_ops);
  EXPECT_GE(meter.limits().int8_ops, first.int8_ops);
  EXPECT_GE(meter.limits().bf16_ops, first.bf16_ops);
}

TEST(MachineLimits, TheBufferIsAsLargeAsTheCacheAsks) {
  EXPECT_GE(LimitMeter::default_buffer_bytes(), 1 << 20);
  EXPECT_LE(LimitMeter::default_buffer_bytes(), 1 << 30);
  EXPECT_FALSE(processor_name().empty());
}

TEST(MachineLimits, EveryByteIsRead) {
  std::vector<uint64_t> words(3 * cpu::kReadUnit / sizeof(uint64_t));
  uint64_t sum = 0;
  for (size_t i = 0; i < words.size(); ++i) sum += words[i] = i * 0x9E3779B97F4A7C15;
  const auto* bytes = reinterpret_cast<const std::byte*>(words.data());
  EXPECT_EQ(cpu::sum_bytes(bytes, 3 * cpu::kReadUnit), sum);
}

}  // namespace
}  // namespace ocelli::kernels
