// marked.cpp - a library by whose one name a program is known to have a sanitizer, or another allocator.
extern "C" __attribute__((visibility("default"))) void MARK() {}
