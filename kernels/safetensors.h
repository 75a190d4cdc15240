// One safetensors file: 8 bytes of header length (little-endian), a JSON header, the tensors'
// bytes.
//
// Every promise of the format is checked before anything is used: the header is at most 100 MB,
// lies inside the file and begins with '{'; no key appears twice; every tensor's range is as long
// as its shape and dtype say; sorted, the ranges follow one another without hole or overlap from
// the header's end to the file's end. The header is read as events, so that memory stays in
// proportion to the number of tensors whatever the header holds, and the tensors' bytes are not
// touched.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace ocelli::kernels {

// The longest header and the highest rank accepted; the first is the format's own limit.
constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;
constexpr size_t kMaxSafetensorsRank = 8;

struct SafetensorsContents {
  std::vector<HostTensor> tensors;              // in the order of their bytes
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

// Reads the header of `file`, a whole file's bytes. The tensors point into `file`, at its
// alignment: the format leaves the header's length free, so that they may be misaligned for their
// dtype. Throws host::Error that begins with `where` and names the tensor at fault.
SafetensorsContents parse_safetensors(std::span<const std::byte> file, const std::string& where);

}  // namespace ocelli::kernels
