#include "vision/image.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include "tests/vision/test_pictures.h"

namespace ocelli::vision {
namespace {

// One line of decode.txt: the picture as stored and as EXIF turns it.
struct Golden {
  std::string name;
  int width = 0;
  int height = 0;
  std::string hash;
  int turned_width = 0;
  int turned_height = 0;
  std::string turned_hash;
};

std::vector<Golden> read_goldens() {
  std::ifstream file(golden_path("decode.txt"));
  std::vector<Golden> goldens;
  Golden one;
  while (file >> one.name >> one.width >> one.height >> one.hash >> one.turned_width >>
         one.turned_height >> one.turned_hash) {
    goldens.push_back(one);
  }
  return goldens;
}

TEST(DecodeImage, EveryVariantEqualsPillow) {
  const std::vector<Golden> goldens = read_goldens();
  EXPECT_GE(goldens.size(), 80U);
  for (const Golden& golden : goldens) {
    SCOPED_TRACE(golden.name);
    DecodeOptions options;
    options.honour_exif = false;
    const Image stored = read_image(golden_path(golden.name), options);
    EXPECT_EQ(stored.width, golden.width);
    EXPECT_EQ(stored.height, golden.height);
    EXPECT_EQ(hash_of(stored), golden.hash);
    const Image turned = read_image(golden_path(golden.name));
    EXPECT_EQ(turned.width, golden.turned_width);
    EXPECT_EQ(turned.height, golden.turned_height);
    EXPECT_EQ(hash_of(turned), golden.turned_hash);
  }
}

// The eight orientations of one JPEG are eight different pictures of the same pixels.
TEST(DecodeImage, OrientationsDiffer) {
  std::set<std::string> hashes;
  for (int i = 1; i <= 8; ++i) {
    const Image image = read_image(golden_path(fmt::format("orientation{}.jpg", i)));
    EXPECT_EQ(image.width, i < 5 ? 24 : 16);
    hashes.insert(hash_of(image));
  }
  EXPECT_EQ(hashes.size(), 8U);
}

TEST(DecodeImage, GoesByContentNotByName) {
  const auto bytes = file_bytes(golden_path("lossless.webp"));
  EXPECT_EQ(decode_image(bytes, "photo.jpg"), read_image(golden_path("rgb.png")));
}

// Cut anywhere, a file is an error or, where only padding or trailing metadata is gone, the
// picture: never a part of it. Long files are cut at every 13th byte.
TEST(DecodeImage, ATruncatedFileNeverPassesForWhole) {
  DecodeOptions options;
  options.honour_exif = false;
  for (const Golden& golden : read_goldens()) {
    SCOPED_TRACE(golden.name);
    const auto bytes = file_bytes(golden_path(golden.name));
    const size_t step = bytes.size() < 1000 ? 1 : 13;
    for (size_t size = 0; size < bytes.size(); size += step) {
      try {
        const Image image = decode_image(std::span(bytes).first(size), golden.name, options);
        ASSERT_EQ(hash_of(image), golden.hash) << "cut at " << size << " of " << bytes.size();
      } catch (const host::Error& error) {
        ASSERT_NE(std::string(error.what()), "");
      }
    }
  }
}

// Half of a file is an error that names the file and says so.
TEST(DecodeImage, HalfAFileIsAnError) {
  for (const char* name : {"baseline.jpg", "progressive.jpg", "cmyk.jpg", "rgb.png", "lossy.webp",
                           "rgb24.bmp", "rle8.bmp", "raw.tif", "tiff_lzw.tif", "jpeg.tif",
                           "raw.ppm", "plain.ppm", "plain.pbm", "raw.pbm"}) {
    const auto bytes = file_bytes(golden_path(name));
    const auto half = std::span(bytes).first(bytes.size() / 2);
    const std::string error = error_of([&] { decode_image(half, name); });
    EXPECT_TRUE(error.starts_with(std::string(name) + ": ")) << error;
    EXPECT_NE(error.find("truncated"), std::string::npos) << error;
  }
}

// A flipped bit may change pixels that nothing protects, but never more than that.
TEST(DecodeImage, ADamagedFileNeverCrashes) {
  DecodeOptions options;
  options.max_pixels = 1 << 20;
  for (const Golden& golden : read_goldens()) {
    SCOPED_TRACE(golden.name);
    auto bytes = file_bytes(golden_path(golden.name));
    for (size_t i = 0; i < bytes.size(); i += bytes.size() < 1000 ? 1 : 13) {
      const std::byte whole = bytes[i];
      bytes[i] ^= std::byte{0xFF};
      try {
        const Image image = decode_image(bytes, golden.name, options);
        ASSERT_EQ(image.rgb.size(), size_t{3} * image.width * image.height);
      } catch (const host::Error& error) {
        ASSERT_NE(std::string(error.what()), "");
      }
      bytes[i] = whole;
    }
  }
}

TEST(ReadImage, TakesStandardInput) {
  const int saved = ::dup(STDIN_FILENO);
  const int file = ::open(golden_path("rgb.png").c_str(), O_RDONLY);
  ASSERT_GE(file, 0);
  ::dup2(file, STDIN_FILENO);
  const Image image = read_image("-");
  ::lseek(STDIN_FILENO, 0, SEEK_END);
  EXPECT_EQ(error_of([] { read_image("-"); }), "standard input: is empty");
  ::dup2(saved, STDIN_FILENO);
  ::close(saved);
  ::close(file);
  EXPECT_EQ(image, read_image(golden_path("rgb.png")));
}

TEST(ReadImage, SaysWhatIsWrongWithAPath) {
  const std::string folder = golden_path("");
  EXPECT_EQ(error_of([&] { read_image(folder); }),
            folder + ": is a directory, where a picture is needed");
  EXPECT_EQ(error_of([] { read_image("no/such.jpg"); }),
            "no/such.jpg: cannot be opened: No such file or directory");
  EXPECT_EQ(error_of([] { read_image("no\n\x1B.jpg"); }),
            "no\\x0a\\x1b.jpg: cannot be opened: No such file or directory");
  EXPECT_EQ(error_of([] { read_image("/dev/null"); }), "/dev/null: is empty");
}

// Something endless that begins as a picture is not read to the end of memory.
TEST(ReadImage, StopsAtWhatNoPictureNeeds) {
  const auto path = std::filesystem::path(testing::TempDir()) / "endless.ppm";
  std::ofstream(path) << "P6 1 1 255\n" << std::string(5 << 20, 'x');
  DecodeOptions options;
  options.max_pixels = 1000;
  const std::string error = error_of([&] { read_image(path.string(), options); });
  std::filesystem::remove(path);
  EXPECT_NE(error.find("at most 1000 pixels never needs"), std::string::npos) << error;
}

TEST(ReadImage, RefusesWhatIsNoPicture) {
  const std::string error = error_of([] { read_image(golden_path("decode.txt")); });
  EXPECT_NE(error.find("not a picture"), std::string::npos) << error;
  EXPECT_NE(error.find("JPEG, PNG, WebP, BMP, TIFF and PPM/PGM/PBM"), std::string::npos) << error;
}

std::string error_for(std::string_view bytes, int64_t max_pixels = DecodeOptions{}.max_pixels) {
  DecodeOptions options;
  options.max_pixels = max_pixels;
  const auto data = std::as_bytes(std::span(bytes));
  return error_of([&] { decode_image(data, "x", options); });
}

TEST(DecodeImage, NamesFormatsThatItKnowsButDoesNotRead) {
  EXPECT_TRUE(error_for("GIF89a\1\1\1\1").starts_with("x: GIF is not supported"));
  EXPECT_TRUE(error_for(std::string("\0\0\0\x1C", 4) + "ftypheic").starts_with("x: HEIC is not"));
  EXPECT_TRUE(error_for(std::string("\0\0\0\x1C", 4) + "ftypavif").starts_with("x: AVIF is not"));
  EXPECT_TRUE(error_for("%PDF-1.7").starts_with("x: PDF is not"));
  EXPECT_TRUE(error_for(std::string("\0\0\0\0", 4)).starts_with("x: not a picture"));
  EXPECT_EQ(error_for(""), "x: is empty");
}

TEST(DecodeImage, RefusesAnAnimation) {
  const std::string error = error_of([] { read_image(golden_path("animated.webp")); });
  EXPECT_NE(error.find("an animated WebP"), std::string::npos) << error;
}

// The golden with the `width` bytes of its size overwritten at `at`, big or little end first.
std::string resized_header(const std::string& name, std::map<size_t, uint32_t> values, int width,
                           bool big) {
  const auto bytes = file_bytes(golden_path(name));
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (const auto& [at, value] : values) {
    for (int i = 0; i < width; ++i) {
      text.at(at + i) = static_cast<char>(value >> (8 * (big ? width - 1 - i : i)));
    }
  }
  return text;
}

size_t jpeg_size_at(const std::string& name) {
  const auto bytes = file_bytes(golden_path(name));
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return text.find("\xFF\xC0") + 5;
}

TEST(DecodeImage, RefusesTooManyPixelsBeforeAllocating) {
  const size_t jpeg = jpeg_size_at("baseline.jpg");
  const std::map<std::string, std::string> bombs = {
      {"PPM", "P6 30000 30000 255\n"},
      {"BMP", resized_header("rgb24.bmp", {{18, 30000}, {22, 30000}}, 4, false)},
      {"TIFF", resized_header("rgbx.tif", {{18, 30000}, {30, 30000}}, 4, false)},
      {"JPEG", resized_header("baseline.jpg", {{jpeg, 30000}, {jpeg + 2, 30000}}, 2, true)},
  };
  for (const auto& [format, bytes] : bombs) {
    EXPECT_EQ(error_for(bytes),
              "x: 30000 x 30000 pixels are more than the limit of 178956970 in all: scale it down "
              "first")
        << format;
  }
  const auto bytes = file_bytes(golden_path("bomb.png"));
  EXPECT_NE(error_of([&] { decode_image(bytes, "x"); }).find("30000 x 30000 pixels are more"),
            std::string::npos);
}

TEST(DecodeImage, LimitIsInPixels) {
  EXPECT_EQ(error_for("P5 3 2 255\nabcdef", 6), "nothing");
  EXPECT_NE(error_for("P5 3 2 255\nabcdef", 5).find("limit of 5"), std::string::npos);
}

TEST(DecodeImage, RefusesAHeaderThatClaimsMoreThanTheFile) {
  EXPECT_NE(error_for("P6 9000 9000 255\nabc").find("truncated"), std::string::npos);
  EXPECT_NE(error_for("P3 9000 9000 255\n1 2 3 ").find("truncated"), std::string::npos);
  EXPECT_NE(error_for("P4 9000 9000\nabc").find("truncated"), std::string::npos);
  const std::string bmp = resized_header("rgb24.bmp", {{18, 9000}, {22, 9000}}, 4, false);
  EXPECT_NE(error_for(bmp).find("truncated"), std::string::npos);
  const std::string tiff = resized_header("rgbx.tif", {{18, 9000}, {30, 9000}}, 4, false);
  EXPECT_NE(error_for(tiff).find("truncated"), std::string::npos);
  const size_t at = jpeg_size_at("baseline.jpg");
  const std::string jpeg = resized_header("baseline.jpg", {{at, 9000}, {at + 2, 9000}}, 2, true);
  EXPECT_NE(error_for(jpeg).find("truncated"), std::string::npos);
  const auto claim = file_bytes(golden_path("claim.png"));
  EXPECT_NE(error_of([&] { decode_image(claim, "x"); }).find("more pixels than its bytes"),
            std::string::npos);
}

TEST(DecodeImage, RefusesNoPixels) {
  EXPECT_NE(error_for("P6 0 5 255\n").find("0 x 5 pixels: there is nothing"), std::string::npos);
  const std::string bmp = resized_header("rgb24.bmp", {{18, 0}, {22, 0}}, 4, false);
  EXPECT_NE(error_for(bmp).find("0 x 0 pixels: there is nothing"), std::string::npos);
  const size_t at = jpeg_size_at("baseline.jpg");
  const std::string jpeg = resized_header("baseline.jpg", {{at, 0}}, 2, true);
  EXPECT_NE(error_for(jpeg).find("damaged"), std::string::npos);
}

TEST(DecodeImage, IsStrictAboutPnm) {
  EXPECT_NE(error_for("P2 1 1 9 10 ").find("a sample is 10, above 9"), std::string::npos);
  EXPECT_NE(error_for("P2 1 1 70000 1 ").find("maximum value is over"), std::string::npos);
  EXPECT_NE(error_for("P2 1 1 0 0 ").find("maximum value is 0"), std::string::npos);
  EXPECT_NE(error_for("P6 -1 1 255\n").find("width is no number"), std::string::npos);
  EXPECT_NE(error_for("P1 1 1\n2").find("not 0 or 1"), std::string::npos);
  EXPECT_NE(error_for("P6 99999999999999999999 1 255\n").find("width is over"), std::string::npos);
}

TEST(DecodeImage, OnePixelWorks) {
  const std::string text = "P6 1 1 255\nabc";
  const Image image = decode_image(std::as_bytes(std::span(text)), "one");
  EXPECT_EQ(image, (Image{1, 1, {'a', 'b', 'c'}}));
  EXPECT_EQ(read_image(golden_path("one.png")).rgb.size(), 3U);
}

}  // namespace
}  // namespace ocelli::vision
