// marked.cpp - a library with one name that marks a program as having a sanitizer, or another allocator.
extern "C" __attribute__((visibility("default"))) void MARK() {}
