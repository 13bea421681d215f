// twin.cpp - as little as a library can be: it can be unloaded, and another loaded in its place.

extern "C" [[gnu::visibility("default")]] int twin(int x);

int twin(int x) {
  return x + 1;
}
