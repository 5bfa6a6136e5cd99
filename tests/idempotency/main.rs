//! Idempotent operations, on every store. A further store adds a line to `on_every_store` and a function to `beds`.
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
        on!(encrypted_files: $($test)*);
        #[cfg(all(feature = "redis", target_os = "linux"))]
        on!(redis: $($test)*);
    };
}

on_every_store! {
    one_of_sixty_four_threads_that_begin_at_once_gets_the_claim
    each_step_is_one_operation_of_the_store
    all_callers_get_the_completed_result
    a_claim_is_completed_once
    an_expired_claim_can_be_completed_while_nobody_else_took_it
    an_abandoned_claim_stays_abandoned_after_it_expired
    a_sleeper_past_its_claim_does_not_overwrite_the_next_result
    a_claim_and_a_result_each_expire_after_their_own_lifetime
    every_new_claim_is_recorded_although_the_store_forgets_records
    an_unreadable_record_is_replaced
    a_claim_without_an_expiry_is_expired_and_a_result_without_one_is_absent
    another_request_under_the_same_key_is_a_mismatch
    a_result_that_is_too_large_is_refused_before_anything_is_written
    a_result_of_another_type_is_an_error_and_stays_recorded
    results_of_all_shapes_come_back
    an_extended_claim_lasts_its_whole_lifetime_again
    an_abandoned_claim_is_free_at_once
    a_recorded_operation_can_be_read
    a_result_whose_write_was_not_confirmed_can_be_written_again
    an_extension_that_was_not_confirmed_does_no_harm
    threads_that_extend_one_claim_do_not_keep_each_other_from_completing_it
    a_closure_runs_once_and_its_failure_frees_the_key
    a_closure_that_panics_leaves_its_claim_to_expire
    a_closure_that_takes_longer_than_a_claim_keeps_it
    a_closure_that_has_lost_its_claim_returns_its_result
    a_result_is_recorded_when_the_store_is_back_soon
    a_claim_is_extended_until_its_result_is_recorded
    a_waiting_caller_gets_the_result_of_the_claim_holder
    a_waiting_caller_takes_over_an_abandoned_or_expired_claim
    a_waiting_caller_recognizes_its_own_claim
    a_wait_ends_by_its_deadline
}
