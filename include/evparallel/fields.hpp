// fields.hpp - EVPARALLEL_FIELDS: names the members of a struct that travel in a message.
// Licence: see COPYING.  Manual: evparallel_io(3).
//
//   struct Job { int width; std::string name; };
//   EVPARALLEL_FIELDS(Job, width, name)          // in the namespace of Job
//
//   class Job { int width_; EVPARALLEL_FIELDS_IN(Job, width_) };   // for private members
//
// packed_io.hpp has the codec, and decides which types it takes.
#pragma once

#include <evparallel/detail/export.hpp>

namespace evparallel {

namespace detail {

// Argument-dependent look-up finds the functions of T by it, and not those of a base class.
template <class T>
struct FieldsOf {};

template <class... Field>
struct FieldTypes {};

}  // namespace detail

}  // namespace evparallel

// At most 64 members.
#define EVPARALLEL_FIELDS(...) \
  EVPARALLEL_DETAIL_ALL(EVPARALLEL_DETAIL_FIELDS(inline, __VA_ARGS__, ))
#define EVPARALLEL_FIELDS_IN(...) \
  EVPARALLEL_DETAIL_ALL(EVPARALLEL_DETAIL_FIELDS(friend, __VA_ARGS__, ))

// Two functions for a Type: the types of its members, and a call of `visit` with the members
// themselves.  Every list ends with an empty argument, so that it may be empty.
#define EVPARALLEL_DETAIL_FIELDS(specifier, Type, ...)                                          \
  template <class EvparallelValue, class EvparallelVisit>                                       \
  [[maybe_unused]] specifier constexpr void evparallel_visit_fields(                            \
      ::evparallel::detail::FieldsOf<Type>, [[maybe_unused]] EvparallelValue& evparallel_value, \
      const EvparallelVisit& evparallel_visit) {                                                \
    evparallel_visit(EVPARALLEL_DETAIL_EACH(EVPARALLEL_DETAIL_MEMBER, __VA_ARGS__));            \
  }                                                                                             \
  [[maybe_unused]] specifier constexpr auto evparallel_field_types(                             \
      ::evparallel::detail::FieldsOf<Type>) noexcept {                                          \
    using evparallel_type [[maybe_unused]] = Type;                                              \
    return ::evparallel::detail::FieldTypes<EVPARALLEL_DETAIL_EACH(EVPARALLEL_DETAIL_TYPE,      \
                                                                   __VA_ARGS__)>{};             \
  }
#define EVPARALLEL_DETAIL_TYPE(name) decltype(evparallel_type::name)
#define EVPARALLEL_DETAIL_MEMBER(name) evparallel_value.name

// EVPARALLEL_DETAIL_EACH(f, a, b, ) is f(a), f(b).
// clang-format off
#define EVPARALLEL_DETAIL_ALL(...) __VA_ARGS__
#define EVPARALLEL_DETAIL_JOIN(a, b) EVPARALLEL_DETAIL_JOIN_(a, b)
#define EVPARALLEL_DETAIL_JOIN_(a, b) a##b
#define EVPARALLEL_DETAIL_EACH(f, ...) \
  EVPARALLEL_DETAIL_JOIN(EVPARALLEL_DETAIL_EACH_, EVPARALLEL_DETAIL_COUNT(__VA_ARGS__))(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_COUNT(...) EVPARALLEL_DETAIL_COUNT_(__VA_ARGS__, \
    64, 63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, \
    41, 40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, \
    18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, )
#define EVPARALLEL_DETAIL_COUNT_( \
    _0, _1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, _13, _14, _15, _16, _17, _18, _19, \
    _20, _21, _22, _23, _24, _25, _26, _27, _28, _29, _30, _31, _32, _33, _34, _35, _36, _37, \
    _38, _39, _40, _41, _42, _43, _44, _45, _46, _47, _48, _49, _50, _51, _52, _53, _54, _55, \
    _56, _57, _58, _59, _60, _61, _62, _63, _64, count, ...) \
  count
#define EVPARALLEL_DETAIL_EACH_0(f, ...)
#define EVPARALLEL_DETAIL_EACH_1(f, a, ...) f(a)
#define EVPARALLEL_DETAIL_EACH_2(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_1(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_3(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_2(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_4(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_3(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_5(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_4(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_6(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_5(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_7(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_6(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_8(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_7(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_9(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_8(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_10(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_9(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_11(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_10(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_12(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_11(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_13(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_12(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_14(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_13(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_15(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_14(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_16(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_15(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_17(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_16(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_18(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_17(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_19(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_18(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_20(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_19(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_21(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_20(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_22(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_21(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_23(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_22(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_24(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_23(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_25(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_24(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_26(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_25(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_27(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_26(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_28(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_27(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_29(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_28(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_30(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_29(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_31(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_30(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_32(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_31(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_33(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_32(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_34(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_33(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_35(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_34(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_36(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_35(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_37(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_36(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_38(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_37(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_39(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_38(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_40(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_39(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_41(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_40(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_42(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_41(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_43(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_42(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_44(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_43(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_45(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_44(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_46(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_45(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_47(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_46(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_48(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_47(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_49(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_48(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_50(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_49(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_51(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_50(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_52(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_51(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_53(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_52(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_54(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_53(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_55(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_54(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_56(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_55(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_57(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_56(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_58(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_57(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_59(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_58(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_60(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_59(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_61(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_60(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_62(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_61(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_63(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_62(f, __VA_ARGS__)
#define EVPARALLEL_DETAIL_EACH_64(f, a, ...) f(a), EVPARALLEL_DETAIL_EACH_63(f, __VA_ARGS__)
// clang-format on
