#include "host/emulated_device.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

#include "host/error.h"
#include "tests/host/expect_error.h"

namespace ocelli::host {
namespace {

// A kernel that adds its second argument to every byte of its first.
void add_to_bytes(std::span<const KernelArgument> arguments) {
  const auto amount = static_cast<uint8_t>(std::get<int64_t>(arguments[1]));
  for (std::byte& byte : std::get<std::span<std::byte>>(arguments[0])) {
    byte = static_cast<std::byte>(static_cast<uint8_t>(byte) + amount);
  }
}

class EmulatedDevices : public testing::Test {
 protected:
  std::unique_ptr<Device> device = make_emulated_device(
      {"board", 3, 100},
      {{"add_to_bytes", add_to_bytes},
       {"broken", [](std::span<const KernelArgument>) { fail("the kernel gave up"); }}});

  BufferId filled(int64_t bytes, uint8_t value) {
    const BufferId buffer = device->allocate(bytes, 0);
    device->write(buffer, 0, std::vector<std::byte>(bytes, static_cast<std::byte>(value)));
    return buffer;
  }
  std::vector<int> bytes_of(BufferId buffer, int64_t count) {
    std::vector<std::byte> bytes(count);
    device->read(buffer, 0, bytes);
    std::vector<int> values;
    for (const std::byte byte : bytes) values.push_back(static_cast<int>(byte));
    return values;
  }
  void launch(BufferId buffer, int64_t offset, int64_t amount) {
    const std::array<Argument, 2> arguments = {BufferArgument{buffer, offset}, amount};
    device->launch("add_to_bytes", arguments);
  }
};

TEST_F(EmulatedDevices, TellTheirShape) {
  EXPECT_EQ(device->name(), "board");
  EXPECT_EQ(device->banks(), 3);
  EXPECT_EQ(device->bank_bytes(), 100);
  const EmulatedDeviceConfig u280 = u280_config();
  EXPECT_EQ(u280.banks, 32);
  EXPECT_EQ(u280.bank_bytes, 256 << 20);
}

TEST_F(EmulatedDevices, EnforceCapacityBankByBank) {
  const BufferId first = device->allocate(60, 1);
  EXPECT_EQ(device->free_bytes(1), 40);
  EXPECT_EQ(device->free_bytes(0), 100);
  EXPECT_TRUE(holds(error_of([&] { device->allocate(41, 1); }),
                    "41 bytes do not fit bank 1, of whose 100 bytes 40 are free"));
  device->allocate(40, 1);
  EXPECT_EQ(device->free_bytes(1), 0);
  device->release(first);
  EXPECT_EQ(device->free_bytes(1), 60);
  device->release(first);  // a second time: nothing
  EXPECT_EQ(device->free_bytes(1), 60);
}

TEST_F(EmulatedDevices, RefuseImpossibleAllocations) {
  for (const int bank : {-1, 3, 1000}) {
    EXPECT_TRUE(holds(error_of([&] { device->allocate(1, bank); }), "there is no bank"));
    EXPECT_TRUE(holds(error_of([&] { (void)device->free_bytes(bank); }), "there is no bank"));
  }
  for (const int64_t bytes : {int64_t{0}, int64_t{-1}, INT64_MIN, INT64_MAX}) {
    EXPECT_TRUE(holds(error_of([&] { device->allocate(bytes, 0); }), "do not fit bank 0"));
  }
}

TEST_F(EmulatedDevices, FreshMemoryIsNan) {
  const BufferId buffer = device->allocate(8, 2);
  std::array<float, 2> values = {};
  device->read(buffer, 0, std::as_writable_bytes(std::span(values)));
  EXPECT_NE(values[0], values[0]);
  EXPECT_NE(values[1], values[1]);
}

TEST_F(EmulatedDevices, NeverGiveAnIdTwice) {
  const BufferId first = device->allocate(10, 0);
  device->release(first);
  EXPECT_NE(device->allocate(10, 0), first);
}

TEST_F(EmulatedDevices, ReadAndWriteAtOffsets) {
  const BufferId buffer = filled(4, 1);
  const std::array<std::byte, 2> twos = {std::byte{2}, std::byte{2}};
  device->write(buffer, 2, twos);
  device->write(buffer, 4, {});  // nothing at the very end is no fault
  EXPECT_EQ(bytes_of(buffer, 4), (std::vector<int>{1, 1, 2, 2}));
}

TEST_F(EmulatedDevices, RefuseWhatLiesOutside) {
  const BufferId buffer = filled(4, 1);
  std::array<std::byte, 2> two = {};
  for (const int64_t offset : {int64_t{3}, int64_t{5}, int64_t{-1}, INT64_MAX, INT64_MIN}) {
    EXPECT_TRUE(
        holds(error_of([&] { device->read(buffer, offset, two); }), "outside a buffer of 4"));
    EXPECT_TRUE(
        holds(error_of([&] { device->write(buffer, offset, two); }), "outside a buffer of 4"));
  }
  EXPECT_TRUE(holds(error_of([&] { launch(buffer, 5, 1); }), "outside a buffer of 4"));
  EXPECT_EQ(bytes_of(buffer, 4), (std::vector<int>{1, 1, 1, 1}));
}

TEST_F(EmulatedDevices, RefuseReleasedBuffers) {
  const BufferId buffer = filled(4, 1);
  device->release(buffer);
  std::array<std::byte, 1> one = {};
  EXPECT_TRUE(holds(error_of([&] { device->read(buffer, 0, one); }), "was released"));
  EXPECT_TRUE(holds(error_of([&] { device->write(buffer, 0, one); }), "was released"));
  EXPECT_TRUE(holds(error_of([&] { launch(buffer, 0, 1); }), "was released"));
}

TEST_F(EmulatedDevices, RunLaunchesOnlyWhenSomethingWaits) {
  const BufferId buffer = filled(3, 1);
  launch(buffer, 0, 10);
  launch(buffer, 2, 100);  // from the third byte to the end
  EXPECT_EQ(bytes_of(buffer, 3), (std::vector<int>{1, 1, 1}));
  device->wait();
  EXPECT_EQ(bytes_of(buffer, 3), (std::vector<int>{11, 11, 111}));
  device->wait();  // nothing is run twice
  EXPECT_EQ(bytes_of(buffer, 3), (std::vector<int>{11, 11, 111}));
}

TEST_F(EmulatedDevices, ReportAKernelThatFailsWhenSomethingWaits) {
  const BufferId buffer = filled(1, 1);
  device->launch("broken", {});
  launch(buffer, 0, 1);
  EXPECT_TRUE(holds(error_of([&] { device->wait(); }), "the kernel gave up"));
  EXPECT_NO_THROW(device->wait()) << "reported once";
  EXPECT_TRUE(holds(error_of([&] { device->launch("absent", {}); }), "no kernel 'absent'"));
}

}  // namespace
}  // namespace ocelli::host
