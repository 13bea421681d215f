// render.cpp - draws the Mandelbrot set or a Julia set by tiles, and writes a PNG.
//
// Shows: a pool and its map, a progress bar, codecs of a program's own by RawIo; and, with
// --frames, which child has drawn which tile.
#include <evparallel/evparallel.hpp>

#include <getopt.h>
#include <png.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace par = evparallel;

// ---- the picture --------------------------------------------------------------------------------

struct Pixel {
  std::uint8_t red = 0;
  std::uint8_t green = 0;
  std::uint8_t blue = 0;
};
bool operator==(const Pixel& a, const Pixel& b) {
  return a.red == b.red && a.green == b.green && a.blue == b.blue;
}

struct Picture {
  int width;
  int height;
  std::vector<Pixel> pixels;

  Picture(int w, int h)
      : width(w), height(h), pixels(static_cast<std::size_t>(w) * static_cast<std::size_t>(h)) {}
  Pixel& at(int x, int y) {
    return pixels[static_cast<std::size_t>(y) * static_cast<std::size_t>(width) +
                  static_cast<std::size_t>(x)];
  }
};

// The visible part of the plane, and for a Julia set its constant.
struct View {
  double left;
  double top;
  double step;  // from one pixel to the next
  bool julia;
  double real;
  double imaginary;
};

struct Tile {
  int x;
  int y;
  int width;
  int height;
  View view;
};

// Starts at 0 and goes round a colour wheel.
Pixel colour_of(double hue, double brightness) {
  const auto part = [&](double shift) {
    const double wave = 0.5 + 0.5 * std::cos(6.283185307179586 * (hue + shift));
    return static_cast<std::uint8_t>(std::lround(255 * brightness * wave));
  };
  return {part(0), part(0.33), part(0.67)};
}

// The number of steps after which a point leaves, smoothed, is the colour of a pixel.
Pixel pixel_at(const View& view, int x, int y) {
  constexpr int most = 1000;
  const double real = view.left + view.step * x;
  const double imaginary = view.top - view.step * y;
  double zr = view.julia ? real : 0;
  double zi = view.julia ? imaginary : 0;
  const double cr = view.julia ? view.real : real;
  const double ci = view.julia ? view.imaginary : imaginary;
  int steps = 0;
  constexpr double far = 256;
  while (zr * zr + zi * zi < far && steps < most) {
    const double next = zr * zr - zi * zi + cr;
    zi = 2 * zr * zi + ci;
    zr = next;
    ++steps;
  }
  if (steps == most) return {};
  const double smooth = steps + 1 - std::log2(std::log2(zr * zr + zi * zi) / 2);
  return colour_of(0.02 * smooth + 0.6, std::min(1.0, smooth / 12 + 0.2));
}

// ---- code of the children -----------------------------------------------------------------------

struct Rendered {
  pid_t child = 0;
  std::vector<Pixel> pixels{};  // of the tile, row by row
};

Rendered render(const Tile& tile) {
  Rendered rendered;
  rendered.child = ::getpid();
  rendered.pixels.reserve(static_cast<std::size_t>(tile.width) *
                          static_cast<std::size_t>(tile.height));
  for (int y = 0; y < tile.height; ++y)
    for (int x = 0; x < tile.width; ++x)
      rendered.pixels.push_back(pixel_at(tile.view, tile.x + x, tile.y + y));
  return rendered;
}

template <>
struct par::Io<Tile> : par::RawIo<Tile> {};

template <>
struct par::Io<Rendered> {
  static void put(par::Writer& out, const Rendered& rendered) {
    par::RawIo<pid_t>::put(out, rendered.child);
    par::RawIo<std::vector<Pixel>>::put(out, rendered.pixels);
  }
  static Rendered get(par::Reader& in) {
    Rendered rendered;
    rendered.child = par::RawIo<pid_t>::get(in);
    rendered.pixels = par::RawIo<std::vector<Pixel>>::get(in);
    return rendered;
  }
};

// ---- the user's options -------------------------------------------------------------------------

const char usage[] =
    "usage: render [-q] [--check] [--frames] [-s WIDTHxHEIGHT] [-j RE,IM] [-w WORKERS] FILE.png\n"
    "Draws the Mandelbrot set by tiles, each by some child of a pool, and writes a PNG.\n"
    "\n"
    "  -s, --size WxH    of the picture; default 1600x1200\n"
    "  -j, --julia RE,IM the Julia set of this constant instead, say -0.8,0.156\n"
    "  -w, --workers N   children; default: one for each CPU\n"
    "      --frames      a frame around each tile, its colour by the child that drew it\n"
    "      --check       draw again in a single process; exit 1 if a byte is different\n"
    "  -q, --quiet       no progress and no other output\n"
    "  -h, --help        this text\n"
    "\n"
    "Exit status: 0 success, 1 a tile or the check failed, 2 wrong usage.\n";

struct Wishes {
  int width = 1600;
  int height = 1200;
  std::optional<std::complex<double>> julia{};
  unsigned workers = 0;
  bool frames = false;
  bool check = false;
  bool quiet = false;
  std::string file{};
};

[[noreturn]] void refuse(const char* what) {
  std::fprintf(stderr, "render: %s\n%s", what, usage);
  std::exit(2);
}

void take_option(Wishes& wishes, int option, const char* value) {
  constexpr int largest = 30000;
  double real = 0;
  double imaginary = 0;
  char more = 0;
  switch (option) {
    case 's':
      if (std::sscanf(value, "%dx%d%c", &wishes.width, &wishes.height, &more) != 2 ||
          wishes.width < 1 || wishes.height < 1 || wishes.width > largest ||
          wishes.height > largest)
        refuse("--size must be WIDTHxHEIGHT, each at most 30000");
      break;
    case 'j':
      if (std::sscanf(value, "%lf,%lf%c", &real, &imaginary, &more) != 2)
        refuse("--julia must be RE,IM");
      wishes.julia = std::complex<double>(real, imaginary);
      break;
    case 'w':
      if (std::sscanf(value, "%u%c", &wishes.workers, &more) != 1 || wishes.workers == 0)
        refuse("--workers must be at least 1");
      break;
    case 'f': wishes.frames = true; break;
    case 'c': wishes.check = true; break;
    case 'q': wishes.quiet = true; break;
    case 'h': std::fputs(usage, stdout); std::exit(0);
    default: std::fputs(usage, stderr); std::exit(2);
  }
}

Wishes wishes_of(int argc, char** argv) {
  static const option options[] = {
      {"size", required_argument, nullptr, 's'},    {"julia", required_argument, nullptr, 'j'},
      {"workers", required_argument, nullptr, 'w'}, {"frames", no_argument, nullptr, 'f'},
      {"check", no_argument, nullptr, 'c'},         {"quiet", no_argument, nullptr, 'q'},
      {"help", no_argument, nullptr, 'h'},          {nullptr, 0, nullptr, 0}};
  Wishes wishes;
  int c;
  while ((c = ::getopt_long(argc, argv, "s:j:w:qh", options, nullptr)) != -1)
    take_option(wishes, c, optarg);
  if (optind + 1 != argc) refuse("exactly one file must be named");
  wishes.file = argv[optind];
  return wishes;
}

View view_of(const Wishes& wishes) {
  constexpr double shown = 3.2;  // of the plane, in the narrower direction of 4 to 3
  const double step = std::max(shown / wishes.width, shown * 3 / 4 / wishes.height);
  const double middle = wishes.julia ? 0 : -0.65;
  const std::complex<double> constant = wishes.julia.value_or(0);
  return {middle - step * wishes.width / 2, step * wishes.height / 2, step,
          wishes.julia.has_value(),         constant.real(),          constant.imag()};
}

std::vector<Tile> tiles_of(const Wishes& wishes) {
  constexpr int side = 64;
  const View view = view_of(wishes);
  std::vector<Tile> tiles;
  for (int y = 0; y < wishes.height; y += side)
    for (int x = 0; x < wishes.width; x += side)
      tiles.push_back(
          {x, y, std::min(side, wishes.width - x), std::min(side, wishes.height - y), view});
  return tiles;
}

// ---- drawing ------------------------------------------------------------------------------------

void put_tile(Picture& picture, const Tile& tile, const std::vector<Pixel>& pixels) {
  if (pixels.size() != static_cast<std::size_t>(tile.width) * static_cast<std::size_t>(tile.height))
    throw std::runtime_error("a tile has the wrong size");
  for (int y = 0; y < tile.height; ++y)
    std::copy_n(pixels.begin() + static_cast<std::ptrdiff_t>(y) * tile.width, tile.width,
                &picture.at(tile.x, tile.y + y));
}

void put_frame(Picture& picture, const Tile& tile, Pixel colour) {
  for (int x = tile.x; x < tile.x + tile.width; ++x)
    picture.at(x, tile.y) = picture.at(x, tile.y + tile.height - 1) = colour;
  for (int y = tile.y; y < tile.y + tile.height; ++y)
    picture.at(tile.x, y) = picture.at(tile.x + tile.width - 1, y) = colour;
}

struct Drawn {
  std::vector<pid_t> drawn_by{};  // for each tile
  std::size_t children = 0;
  std::vector<std::string> failures{};
};

Drawn draw(par::Reactor& loop, const Wishes& wishes, const std::vector<Tile>& tiles,
           Picture& picture) {
  par::PoolOptions options;
  options.workers = wishes.workers;
  auto pool = par::pool(loop, render, options);

  par::ProgressOptions look;
  look.label = "tiles";
  if (wishes.quiet) look.form = par::ProgressForm::quiet;
  par::ProgressBar bar(look);

  Drawn drawn;
  drawn.drawn_by.resize(tiles.size());
  par::MapOptions how;
  how.ordered = false;
  how.on_progress = [&](const par::Progress& progress) { bar.show(progress); };
  pool.map(
      tiles,
      [&](std::size_t index, par::Result<Rendered> r) {
        if (!r) return drawn.failures.push_back(r.error().what());
        put_tile(picture, tiles[index], r->pixels);
        drawn.drawn_by[index] = r->child;
      },
      [](const par::MapSummary&) {}, std::move(how));
  loop.run();
  return drawn;
}

// A colour for each child, in the order of their first tiles.
void put_frames(Picture& picture, const std::vector<Tile>& tiles, const Drawn& drawn) {
  std::map<pid_t, Pixel> colours;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const double hue = 0.381966 * static_cast<double>(colours.size());  // far from the others
    const auto found = colours.emplace(drawn.drawn_by[i], colour_of(hue, 1)).first;
    put_frame(picture, tiles[i], found->second);
  }
}

bool equals_single_process(const Picture& picture, const std::vector<Tile>& tiles) {
  Picture again(picture.width, picture.height);
  for (const Tile& tile : tiles) put_tile(again, tile, render(tile).pixels);
  return again.pixels == picture.pixels;
}

void write_png(const Picture& picture, const std::string& file) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(picture.width);
  image.height = static_cast<png_uint_32>(picture.height);
  image.format = PNG_FORMAT_RGB;
  if (!::png_image_write_to_file(&image, file.c_str(), 0, picture.pixels.data(), 0, nullptr))
    throw std::runtime_error(file + ": " + image.message);
}

int render_picture(int argc, char** argv) {
  const Wishes wishes = wishes_of(argc, argv);
  par::init();
  par::Reactor loop;
  const std::vector<Tile> tiles = tiles_of(wishes);
  Picture picture(wishes.width, wishes.height);
  const Drawn drawn = draw(loop, wishes, tiles, picture);
  for (const std::string& failure : drawn.failures)
    std::fprintf(stderr, "render: a tile is missing: %s\n", failure.c_str());
  bool equal = drawn.failures.empty();
  if (wishes.check && equal) {
    equal = equals_single_process(picture, tiles);
    if (!wishes.quiet || !equal)
      std::puts(equal ? "equal to a single process" : "NOT equal to a single process");
  }
  if (wishes.frames) put_frames(picture, tiles, drawn);
  write_png(picture, wishes.file);
  return equal ? 0 : 1;
}

int main(int argc, char** argv) {
  try {
    return render_picture(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "render: %s\n", error.what());
    return 1;
  }
}
