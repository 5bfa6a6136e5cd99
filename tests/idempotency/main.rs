//! Doing a thing once, on every store. Another store adds a line to `on_every_store` and a function to `beds`.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod bed;
mod claims;
mod in_files;
#[cfg(all(feature = "redis", target_os = "linux"))]
mod on_redis;
#[cfg(target_os = "linux")]
mod processes;
mod runs;
mod slow_stores;
mod waiting;

use claims::*;
use runs::*;
use waiting::*;

macro_rules! on {
    ($store:ident: $($test:ident)*) => {
        mod $store {
            $(#[test]
            fn $test() {
                crate::$test(&crate::bed::beds::$store());
            })*
        }
    };
}

macro_rules! on_every_store {
    ($($test:ident)*) => {
        on!(memory: $($test)*);
        on!(files: $($test)*);
        #[cfg(feature = "encryption")]
        on!(sealed_files: $($test)*);
        #[cfg(all(feature = "redis", target_os = "linux"))]
        on!(redis: $($test)*);
    };
}

on_every_store! {
    of_sixty_four_threads_that_begin_at_once_one_has_the_claim
    each_step_is_one_operation_of_the_store
    what_has_been_completed_is_what_everybody_gets
    a_claim_is_completed_once
    a_claim_that_has_run_out_neither_comes_back_nor_overwrites_anything
    who_sleeps_past_the_claim_does_not_overwrite_who_took_over
    a_claim_that_lapses_frees_the_key_after_its_own_life_and_a_result_is_kept_for_its
    who_is_told_to_do_it_has_a_recorded_claim_whatever_the_store_forgets
    what_cannot_be_read_is_replaced
    a_claim_without_end_is_over_and_a_result_without_end_is_none
    another_request_under_the_same_key_is_a_mismatch
    a_result_that_is_too_large_is_refused_before_anything_is_written
    a_result_of_another_type_is_an_error_and_stays
    results_of_all_shapes_come_back
    an_extended_claim_lasts_its_whole_life_again
    an_abandoned_claim_is_free_at_once
    what_is_recorded_can_be_looked_at
    a_result_whose_recording_was_not_confirmed_can_be_recorded_again
    an_extension_that_was_not_confirmed_does_no_harm
    threads_that_extend_one_claim_do_not_keep_each_other_from_completing_it
    a_closure_runs_once_and_its_failure_frees_the_key
    a_closure_that_panics_leaves_its_claim_to_run_out
    a_closure_that_takes_longer_than_a_claim_keeps_it
    a_closure_that_has_lost_its_claim_hands_its_result_back
    a_result_is_recorded_when_the_store_is_back_soon
    who_waits_gets_the_result_of_another
    who_waits_takes_over_what_is_abandoned_or_runs_out
    who_waits_knows_a_claim_of_its_own
    who_waits_ends_in_time
}
