// `caption --report`: what stands on the page, and, where Chromium is installed, what the page
// does.
#include <algorithm>
#include <set>

#include "app/html.h"
#include "app/report_files.h"
#include "host/error.h"
#include "tests/app/command.h"
#include "vision/image.h"

namespace ocelli::app {
namespace {

std::string quoted(const std::string& text) {
  return "'" + text + "'";
}

std::string encoded(std::string_view text) {
  return base64(std::as_bytes(std::span(text)));
}

TEST(Html, TextIsTextWhateverItHolds) {
  EXPECT_EQ(escape_html("a < b > c & \"d\" 'e'"),
            "a &lt; b &gt; c &amp; &quot;d&quot; &#39;e&#39;");
  EXPECT_EQ(escape_html("caf\xC3\xA9 \xF0\x9F\x90\x9F\n"), "caf\xC3\xA9 \xF0\x9F\x90\x9F\n");
  EXPECT_EQ(escape_html(std::string("\0\x1B\x7F\xC2\x85", 5)),
            "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(escape_html("\xFF<\xC3"), "\xEF\xBF\xBD&lt;\xEF\xBF\xBD");
}

TEST(Html, LinksAreRelativeAndHarmless) {
  EXPECT_EQ(link_to("out/photos/a b.jpg", "out"), "./photos/a%20b.jpg");
  EXPECT_EQ(link_to("photos/a.jpg", "out/"), "./../photos/a.jpg");
  EXPECT_EQ(link_to("/x/y/a.jpg", "/x/y"), "./a.jpg");
  EXPECT_EQ(link_to("javascript:alert(1)", ""), "./javascript%3Aalert%281%29");
  EXPECT_EQ(link_to("a#b?c%20\"<\xFF.jpg", ""), "./a%23b%3Fc%2520%22%3C%FF.jpg");
}

TEST(Html, Base64AsRfc4648) {
  EXPECT_EQ(encoded(""), "");
  EXPECT_EQ(encoded("f"), "Zg==");
  EXPECT_EQ(encoded("fo"), "Zm8=");
  EXPECT_EQ(encoded("foo"), "Zm9v");
  EXPECT_EQ(encoded("foobar"), "Zm9vYmFy");
  EXPECT_EQ(encoded("\xFB\xFF\xFE"), "+//+");
  // The digest of nothing.
  EXPECT_EQ(policy_hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
}

TEST(Html, ValuesOfTemplatesAreNotTemplates) {
  EXPECT_EQ(fill("<b>{{a}}</b>{{b}}{{a}}", {{"a", "{{b}}"}, {"b", "2"}}), "<b>{{b}}</b>2{{b}}");
  EXPECT_EQ(html_part("<!-- x -->\nX\n<!-- y -->\nY\n", "x"), "X\n");
  EXPECT_EQ(html_part("<!-- x -->\nX\n<!-- y -->\nY\n", "y"), "Y\n");
}

constexpr const char* kHostile = "<img src=x onerror=alert(1)>&amp; {{q}}.jpg";

// The bundled scenes, one of them under a hostile name, and a file that is no picture.
class Report : public testing::Test {
 protected:
  Report() {
    fs::copy(source_path("assets/scenes"), folder_ / "photos");
    fs::rename(folder_ / "photos/moon-sun.jpg", folder_ / "photos" / kHostile);
    write_file(folder_ / "photos/broken.jpg", "not a picture");
  }

  Finished caption(const std::string& more) const {
    return run_ocelli("caption -q " + quoted((folder_ / "photos").string()) + " --report " +
                      quoted(page().string()) + " " + more);
  }
  fs::path page() const { return folder_ / "report.html"; }
  std::string table() const { return "-o " + quoted((folder_ / "captions.jsonl").string()); }

  TemporaryFolder folder_;
};

size_t count(const std::string& text, const std::string& what) {
  size_t found = 0;
  for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += what.size()) ++found;
  return found;
}

TEST_F(Report, HasEveryPictureAndNothingThatIsNotItsOwn) {
  ASSERT_EQ(caption(table()).code, 0);
  const std::string html = read_file(page());
  EXPECT_EQ(count(html, "<li class=\"card\""), 7U);
  EXPECT_EQ(count(html, "data:image/jpeg;base64,"), 6U);
  EXPECT_EQ(count(html, "data-status=\"ok\" data-confidence=\"0."), 6U);
  EXPECT_NE(html.find("A red house stands to the left of a green tree"), html.npos);
  EXPECT_NE(html.find("not a picture"), html.npos);
  EXPECT_EQ(html.find("<img src=x"), html.npos);
  EXPECT_NE(html.find("&lt;img src=x onerror=alert(1)&gt;&amp;amp; {{q}}.jpg"), html.npos);
  EXPECT_NE(html.find("href=\"./photos/%3Cimg%20src%3Dx"), html.npos);
  EXPECT_EQ(html.find("http:"), html.npos);
  EXPECT_EQ(html.find("https:"), html.npos);
  EXPECT_NE(html.find("style-src " + quoted(policy_hash(kReportStyle))), html.npos);
  EXPECT_NE(html.find(quoted(policy_hash(kReportScript))), html.npos);
  EXPECT_LT(html.size(), 300'000U);
  // An interrupted or repeated run takes pictures from the journal.
  ASSERT_EQ(caption(table()).code, 0);
  EXPECT_EQ(read_file(page()), html);
}

TEST_F(Report, ShowsPicturesThatHaveTheirSidecars) {
  ASSERT_EQ(caption("").code, 0);
  const std::string html = read_file(page());
  const fs::path sidecar = folder_ / "photos/house-tree-sun.txt";
  write_file(sidecar, "mine");
  ASSERT_EQ(caption("").code, 0);
  EXPECT_EQ(read_file(page()), html);
  EXPECT_EQ(read_file(sidecar), "mine");
}

TEST_F(Report, APlaceThatCannotBeIsRefusedAtOnce) {
  const Finished run = run_ocelli("caption " + quoted((folder_ / "photos").string()) +
                                  " --report /proc/none/report.html " + table());
  expect_failure(run, "/proc/none");
  EXPECT_FALSE(fs::exists(folder_ / "captions.jsonl"));
}

// The page in Chromium, without a window.
class ReportInChromium : public Report {
 protected:
  void SetUp() override {
    if (std::system("command -v chromium >/dev/null") != 0) {
      GTEST_SKIP() << "chromium is not installed";
    }
    ASSERT_EQ(caption(table()).code, 0);
  }

  // Runs it on the page at `address` (what stands behind "#"); returns what it prints.
  std::string browse(const std::string& address, const std::string& flags) const {
    const fs::path out = folder_ / "out";
    const std::string command = fmt::format(
        "HOME='{0}' timeout 120 chromium --headless --no-sandbox --disable-gpu "
        "--hide-scrollbars --virtual-time-budget=2000 --user-data-dir='{0}/browser' "
        "{1} 'file://{2}#{3}' >'{4}' 2>'{0}/err'",
        folder_.path().string(), flags, page().string(), address, out.string());
    EXPECT_EQ(std::system(command.c_str()), 0) << read_file(folder_ / "err");
    return read_file(out);
  }

  // The names of the pictures that are shown, in their order.
  std::vector<std::string> shown(const std::string& address) const {
    const std::string dom = browse(address, "--dump-dom");
    const std::string card = "<li class=\"card\"";
    const std::string title = "class=\"path\" title=\"";
    std::vector<std::string> names;
    for (size_t at = dom.find(card); at != dom.npos; at = dom.find(card, at + 1)) {
      const std::string attributes = dom.substr(at, dom.find('>', at) - at);
      const size_t path = dom.find(title, at) + title.size();
      const std::string place = dom.substr(path, dom.find('"', path) - path);
      if (attributes.find("hidden") == attributes.npos) {
        names.push_back(fs::path(place).filename());
      }
    }
    return names;
  }

  static std::vector<std::string> sorted(std::vector<std::string> names) {
    std::ranges::sort(names);
    return names;
  }
};

using Names = std::vector<std::string>;

TEST_F(ReportInChromium, SearchesFiltersAndSorts) {
  EXPECT_EQ(shown("").size(), 7U);
  EXPECT_EQ(sorted(shown("q=House")),
            (Names{"fish-house-heart.jpg", "heart-boat-house.png", "house-tree-sun.png"}));
  EXPECT_EQ(shown("status=error"), Names{"broken.jpg"});
  EXPECT_EQ(shown("status=ok,error&q=house&max=50"), Names{});
  EXPECT_EQ(shown("min=50&q=onerror").size(), 1U);
  const Names low = shown("sort=low&status=ok");
  EXPECT_EQ(low.size(), 6U);
  Names high = shown("sort=high&status=ok");
  EXPECT_EQ(sorted(low), sorted(high));
  EXPECT_NE(low, high);
}

TEST_F(ReportInChromium, LooksLikeSomethingInLightAndDark) {
  std::vector<double> brightness;
  for (const char* flags : {"", " --blink-settings=preferredColorScheme=0"}) {
    const fs::path shot = folder_ / "shot.png";
    browse("", "--window-size=1280,900 --screenshot=" + quoted(shot.string()) + flags);
    const vision::Image image = vision::read_image(shot.string());
    EXPECT_EQ(image.width, 1280);
    std::set<uint32_t> colours;
    double sum = 0;
    for (size_t i = 0; i < image.rgb.size(); i += 3) {
      colours.insert(image.rgb[i] << 16 | image.rgb[i + 1] << 8 | image.rgb[i + 2]);
      sum += image.rgb[i];
    }
    // Letters alone have some hundred colours, thumbnails thousands.
    EXPECT_GT(colours.size(), 3000U);
    brightness.push_back(sum / static_cast<double>(image.rgb.size() / 3));
  }
  EXPECT_GT(brightness[0], brightness[1] + 50);
}

}  // namespace
}  // namespace ocelli::app
