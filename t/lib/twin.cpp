// twin.cpp - a minimal library: it can be unloaded, and another one loaded in its place.

extern "C" [[gnu::visibility("default")]] int twin(int x);

int twin(int x) {
  return x + 1;
}
