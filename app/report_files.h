// The files of app/report as they were when this was built: the report's page, its parts, style and
// scripts.
#pragma once

#include <string_view>

namespace ocelli::app {

extern const std::string_view kReportPage;         // page.html
extern const std::string_view kReportParts;        // parts.html: pieces, each behind its name
extern const std::string_view kReportStyle;        // style.css
extern const std::string_view kReportEarlyScript;  // early_script.js: runs before anything is drawn
extern const std::string_view kReportScript;       // script.js

}  // namespace ocelli::app
