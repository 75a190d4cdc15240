// What a picture's rows depend on, as one hash: the vision tower, how it is computed, and what it
// is given to see.
#pragma once

#include "app/pipeline.h"
#include "app/row_entry.h"

namespace ocelli::app {

// Of the tower's weights and configuration, and of everything about the machine that changes bits:
// backend, instruction set, and whether weights are made int8. Threads and batch do not. Reads the
// tower's weights, once, except of a packed model, whose file has their checksums.
host::Sha256Digest tower_hash(const OpenedModel& model, const PipelineOptions& options);

// SHA-256 of the tower's hash, the picture's dimensions and all its pixels as Pipeline::preprocess
// gives them: files that are decoded to the same pixels share an entry, and how the picture became
// a square is in them.
RowKey row_key(const host::Sha256Digest& tower, const vision::Image& preprocessed);

}  // namespace ocelli::app
