// Which pictures files, folders, patterns and lists come to, and in which order.
#include "app/caption_inputs.h"

#include "host/error.h"
#include "tests/app/command.h"
#include "tests/host/expect_error.h"

namespace ocelli::app {
namespace {

using Names = std::vector<std::string>;

// A folder that is the current one, so that paths are short.
class CaptionInputsFound : public testing::Test {
 protected:
  CaptionInputsFound() { fs::current_path(folder_.path()); }
  ~CaptionInputsFound() override { fs::current_path(before_); }

  static void make(const Names& files) {
    for (const std::string& file : files) {
      if (const fs::path parent = fs::path(file).parent_path(); !parent.empty()) {
        fs::create_directories(parent);
      }
      write_file(file, "x");
    }
  }
  static Names found(const Names& paths, bool recursive = false, const Names& lists = {}) {
    Names names;
    for (const CaptionInput& input : find_pictures({paths, lists, recursive}).pictures) {
      names.push_back(input.path);
    }
    return names;
  }
  static std::string error(const Names& paths, bool recursive = false) {
    return error_of([&] { found(paths, recursive); });
  }

 private:
  fs::path before_ = fs::current_path();
  TemporaryFolder folder_;
};

TEST_F(CaptionInputsFound, InAFolderByTheBytesOfTheirNames) {
  make({"p/b.png", "p/B.JPG", "p/a-b.webp", "p/a.bmp", "p/ä.tiff", "p/10.ppm", "p/9.jpeg",
        "p/.hidden.png", "p/notes.txt", "p/png", "p/a.png.txt", "p/sub/c.png"});
  fs::create_directories("p/folder.png");
  EXPECT_EQ(found({"p"}), (Names{"p/10.ppm", "p/9.jpeg", "p/B.JPG", "p/a-b.webp", "p/a.bmp",
                                 "p/b.png", "p/ä.tiff"}));
  EXPECT_EQ(found({"p/"}), found({"p"}));
  EXPECT_EQ(found({"./p//"}), found({"p"}));
}

TEST_F(CaptionInputsFound, InSubfoldersOnRequest) {
  make({"p/b.png", "p/a/1.png", "p/a-b/1.png", "p/a.png", "p/.git/x.png", "p/z/y/x.png"});
  EXPECT_EQ(found({"p"}), (Names{"p/a.png", "p/b.png"}));
  EXPECT_EQ(found({"p"}, true),
            (Names{"p/a/1.png", "p/a-b/1.png", "p/a.png", "p/b.png", "p/z/y/x.png"}));
  const CaptionInputs inputs = find_pictures({{"p"}, {}, true});
  EXPECT_EQ(inputs.pictures[4].place, "z/y/x.png");  // below the folder that was named
  EXPECT_EQ(inputs.folder, "p");
  fs::current_path("p");
  EXPECT_EQ(found({"."}), (Names{"a.png", "b.png"}));
}

TEST_F(CaptionInputsFound, OnceHoweverTheyAreNamed) {
  make({"p/a.png", "p/b.png"});
  EXPECT_EQ(found({"p/b.png", "p", "./p/a.png", "p/*.png"}), (Names{"p/b.png", "p/a.png"}));
}

TEST_F(CaptionInputsFound, ThroughLinksButNotInCircles) {
  make({"p/a.png", "q/b.png"});
  fs::create_directory_symlink("..", "p/up");
  fs::create_directory_symlink("../q", "p/other");
  fs::create_symlink("nowhere.png", "p/gone.png");
  EXPECT_EQ(found({"p"}, true), (Names{"p/a.png", "p/gone.png", "p/other/b.png"}));
}

TEST_F(CaptionInputsFound, ByPatterns) {
  make({"p/1.png", "p/2.png", "p/10.txt", "q/3.png", "r/4.png", "p/[x].png"});
  EXPECT_EQ(found({"p/[0-9]*"}), (Names{"p/1.png", "p/2.png"}));
  EXPECT_EQ(found({"[pq]"}), (Names{"p/1.png", "p/2.png", "p/[x].png", "q/3.png"}));
  EXPECT_EQ(found({"p/[x].png"}), (Names{"p/[x].png"}));  // a file of that name
  EXPECT_TRUE(holds(error({"s/*.png"}), "s/*.png: no file and no folder matches"));
}

TEST_F(CaptionInputsFound, InLists) {
  make({"lists/in/a.png", "lists/b.data", "c.png"});
  write_file("lists/l.txt", "in\r\n\n  \nb.data\nmissing.png\n../c.png\nin/a.png\n");
  EXPECT_EQ(found({}, false, {"lists/l.txt"}),
            (Names{"lists/in/a.png", "lists/b.data", "lists/missing.png", "lists/../c.png"}));
  const Names absolute = {(fs::current_path() / "c.png").string()};
  write_file("abs.txt", absolute[0]);
  EXPECT_EQ(found({}, false, {"abs.txt"}), absolute);
  write_file("empty.txt", "\n \n");
  EXPECT_TRUE(holds(error_of([] { found({}, false, {"empty.txt"}); }), "holds no paths"));
  EXPECT_TRUE(holds(error_of([] { found({}, false, {"none.txt"}); }), "none.txt"));
}

TEST_F(CaptionInputsFound, WhateverTheNameOfAFileThatIsNamed) {
  make({"photo", "p/a.png"});
  EXPECT_EQ(found({"photo"}), Names{"photo"});
  EXPECT_EQ(find_pictures({{"p/a.png"}, {}, false}).pictures[0].place, "a.png");
}

TEST_F(CaptionInputsFound, OrElseItIsSaidWhatIsMissing) {
  make({"p/notes.txt", "p/sub/a.png", "q/a.HEIC", "q/b.heic", "q/c.gif"});
  EXPECT_TRUE(holds(error({"nowhere"}), "nowhere: there is no such file"));
  EXPECT_TRUE(holds(error({"p"}), "--recursive looks into subfolders"));
  EXPECT_TRUE(holds(error({"q"}, true), "of other formats: 1 .gif, 2 .heic"));
  make({"q/d.png"});
  EXPECT_EQ(find_pictures({{"q"}, {}, false}).left_out, "1 .gif, 2 .heic");
  EXPECT_EQ(find_pictures({{"q/d.png"}, {}, false}).left_out, "");
}

}  // namespace
}  // namespace ocelli::app
