//! P4, P2 and P7 for `[entity]`: each change is judged by the authority at its own place. What is written on the side that lacks it is
//! recorded and undone there, what may still change on old crosses, and both sides end equal, whatever is killed meanwhile.

mod columns;
mod families;
mod killed;
mod places;
mod random;
mod stage;
mod writers;

use crossfade_tests::on_both_brands;

on_both_brands! {
    p4_who_writes_without_authority_is_undone => writers::who_writes_without_authority_is_undone,
    p4_all_others_follow_the_rest => writers::all_others_follow_the_rest,
    p4_allowed_columns_still_cross => columns::allowed_columns_still_cross,
    p7_an_allowed_column_that_is_refused_is_undone => columns::an_allowed_column_that_is_refused_is_undone,
    p4_each_change_is_judged_by_its_own_place => places::each_change_is_judged_by_its_own_place,
    p4_parents_and_children_stay_together => families::parents_and_children_stay_together,
    p2_whoever_is_killed_all_is_judged_alike => killed::whoever_is_killed_all_is_judged_alike,
    p2_who_takes_over_judges_alike => killed::who_takes_over_judges_alike,
    p4_random_writers_converge => random::random_writers_converge,
}
