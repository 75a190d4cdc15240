// What tests of bad input ask: does this throw host::Error, and what does the message say?
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "host/error.h"

namespace ocelli {

// The message of the host::Error that `act` throws; a failed test and "" when it throws none.
template <typename Act>
std::string error_of(Act act) {
  try {
    act();
  } catch (const host::Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no host::Error was thrown";
  return "";
}

// Whether `text` holds `part`, for EXPECT_TRUE.
inline testing::AssertionResult holds(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "\"" << part << "\" is not in \"" << text << "\"";
}

}  // namespace ocelli
