# The two commands of the README, and the parts they are made of. What is missing of Debian 12's
# packages is installed first; a second run starts at once.
#
#   make demo      build, ask the bundled model about a picture, have the other tell a story
#   make test      everything below that tests: what .ci/run calls
#   make lint      clang-format and clang-tidy over our sources
#   make install   PREFIX=/usr/local by default

PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
# The demo: which picture, and what is asked.
PICTURE ?= assets/scenes/house-tree-sun.png
QUESTION ?= What do you see?
BEGINNING ?= Once upon a time

# The one list of packages: what the build needs, and what only tests need.
BUILD_PACKAGES = build-essential cmake ninja-build pkg-config libfmt-dev nlohmann-json3-dev \
  libcli11-dev libpcre2-dev libpng-dev libjpeg62-turbo-dev libtiff-dev libwebp-dev libexiv2-dev \
  libsentencepiece-dev nettle-dev libgtest-dev
TEST_PACKAGES = libbenchmark-dev clang libclang-rt-14-dev clang-format clang-tidy \
  openmpi-bin parallel slurm-wlm chromium

SUDO = $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# $(call install,PACKAGES): those that are missing; on a system without dpkg it trusts the user.
define install
@if command -v dpkg-query >/dev/null; then \
  missing=; \
  for package in $(1); do \
    dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q ' installed$$' \
      || missing="$$missing $$package"; \
  done; \
  if [ -n "$$missing" ]; then \
    echo "installing$$missing"; \
    $(SUDO) apt-get update -q && \
    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends $$missing; \
  fi; \
fi
endef
# $(call build,PRESET,TARGETS): configures a preset when that was not done, and builds.
define build
@test -f build/$(1)/build.ninja || cmake --preset $(1)
cmake --build --preset $(1) --parallel $(JOBS) --target $(2)
endef

.PHONY: demo test test-release test-asan test-tsan test-fuzz asan tsan fuzz lint install \
  packages test-packages

demo: packages
	$(call build,release,ocelli)
	build/release/app/ocelli ask "$(PICTURE)" "$(QUESTION)"
	build/release/app/ocelli story "$(BEGINNING)"

test: test-release test-asan test-tsan test-fuzz

test-release: test-packages
	$(call build,release,all)
	ctest --no-tests=error --preset release --parallel $(JOBS)

# Memory errors and undefined behaviour.
test-asan asan: test-packages
	$(call build,asan-ubsan,all)
	ctest --no-tests=error --preset asan-ubsan --parallel $(JOBS)

# Data races: the thread pool and the operations that run on it.
test-tsan tsan: test-packages
	$(call build,tsan,test_host test_kernels)
	ctest --no-tests=error --preset tsan --parallel $(JOBS) --tests-regex '^(host.ThreadPool|kernels.*cpu)'

# Every parser for FUZZ_SECONDS.
test-fuzz fuzz: test-packages
	@cmake --preset fuzz -DOCELLI_FUZZ_SECONDS=$(FUZZ_SECONDS) >/dev/null
	$(call build,fuzz,fuzz_programs)
	ctest --no-tests=error --preset fuzz --parallel $(JOBS)

lint: test-packages
	$(call build,release,all)
	cmake --build --preset release --target lint

install: packages
	$(call build,release,ocelli)
	cmake --install build/release --prefix $(PREFIX)

packages:
	$(call install,$(BUILD_PACKAGES))

test-packages:
	$(call install,$(BUILD_PACKAGES) $(TEST_PACKAGES))
