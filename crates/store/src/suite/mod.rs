//! The behaviour that every store shows, as named functions. An implementation's tests say
//! `carrel_store::store_suite!(open)`, where `open()` gives a fresh, empty store and what keeps it alive; `None` where what it needs
//! is missing, which it has said then.
#![expect(missing_docs, reason = "the names are sentences")]

pub mod access;
pub mod attempts;
pub mod audit;
pub mod claims;
pub mod commits;
pub mod erase;
pub mod feed;
pub mod fixture;
pub mod heads;
pub mod inbox;
pub mod learners;
pub mod ledger;
pub mod outcomes;
pub mod processes;

/// Expands to one test a behaviour. `$open` is an async function that gives
/// `Option<(SharedStore, guard)>`.
#[macro_export]
macro_rules! store_suite {
    ($open:path) => {
        $crate::store_suite! { $open;
            inbox: an_accepted_message_is_a_queued_turn_with_its_event
                the_same_key_and_body_gets_the_same_answer
                the_same_key_with_another_body_is_refused
                two_learners_may_use_the_same_key
                the_same_key_fifty_times_at_once_is_one_message
                a_full_queue_refuses_new_messages_and_still_answers_repeats
                a_message_for_nobody_is_refused
                history_is_in_the_order_of_acceptance_and_pages_backwards
                a_turn_is_shown_to_its_own_learner_only
                the_backlog_counts_open_turns_and_names_the_oldest;
            claims: a_claim_brings_all_that_is_needed_to_run_the_turn
                turns_of_a_learner_run_one_at_a_time_in_order
                the_owner_of_a_turn_is_told_while_its_lease_lives
                a_live_lease_keeps_others_away_until_it_ends
                owners_racing_for_a_turn_have_one_winner
                every_claim_has_a_higher_lease_generation
                a_renewed_lease_lives_on_and_a_lost_one_is_named
                a_process_that_is_alone_ends_the_leases_of_others
                waiting_names_learners_without_an_owner_longest_first
                a_stale_owner_writes_nothing;
            attempts: an_attempt_makes_the_turn_run_in_its_epoch
                beginning_again_in_the_same_epoch_is_the_same_attempt
                beginning_below_the_fence_is_refused
                a_newer_incarnation_says_that_the_older_one_died
                a_death_puts_the_turn_back_and_is_counted_once
                a_refused_attempt_waits_again_without_a_word
                a_refused_attempt_that_should_stop_is_stopped
                the_third_death_of_the_agent_parks_the_message
                the_twentieth_death_of_infrastructure_parks_the_message
                tool_uses_are_events_of_their_turn
                waiting_and_waking_are_timed_by_the_store;
            outcomes: a_failed_turn_keeps_its_failure_and_lets_the_next_one_run
                a_turn_that_waits_is_stopped_at_once
                a_running_turn_keeps_the_wish_to_stop
                a_turn_that_should_stop_does_not_run_again_after_a_death
                an_ended_turn_never_runs_again
                outcomes_of_other_channels_wait_until_they_are_delivered
                outcomes_of_the_web_leave_nothing_to_deliver;
            commits: a_commit_moves_the_head_and_ends_the_turn
                an_equal_commit_gets_the_same_answer
                an_equal_commit_gets_the_same_answer_from_above_its_epoch_too
                another_commit_of_a_taken_generation_is_refused
                a_commit_below_the_fence_is_refused_and_named_the_fence
                a_commit_of_a_turn_of_another_epoch_is_refused
                a_commit_after_the_failure_is_refused
                a_commit_from_another_snapshot_is_refused
                a_commit_without_a_turn_is_a_snapshot
                a_stopped_turn_commits_what_was_done
                files_of_a_reply_come_back_by_place
                a_commit_and_a_failure_at_once_have_one_outcome
                commits_of_twenty_at_once_have_one_winner;
            heads: a_contact_raises_the_fence_and_reads_the_head
                the_fence_is_raised_by_every_signed_epoch_and_never_lowered
                a_fall_back_takes_an_older_state_as_a_new_generation
                lost_turns_are_told_until_a_turn_commits
                lost_turns_are_told_again_when_the_telling_is_lost
                a_turn_claimed_before_a_fall_back_is_told_when_it_begins
                a_turn_that_a_restore_brought_back_may_be_lost_again
                a_fall_back_to_nothing_is_an_empty_workspace
                an_operator_restores_an_older_state
                a_restore_that_comes_late_takes_nothing_from_a_newer_incarnation
                damaged_and_expired_generations_are_not_restored
                a_data_key_is_kept_once_rewrapped_by_compare_and_destroyed;
            ledger: what_is_held_and_settled_counts_against_the_day
                what_other_days_spent_counts_against_the_month
                the_tightest_bound_is_named_with_what_still_fits
                fifty_reservations_at_the_edge_are_never_over
                a_reservation_made_again_is_the_same_one
                a_reservation_is_settled_once
                a_settlement_above_its_reservation_is_charged_in_full
                orphans_are_settled_at_what_was_reserved
                a_turn_used_what_was_reserved_or_settled_while_it_ran
                a_reservation_below_the_fence_is_refused
                what_costs_nothing_passes_the_fence_too
                usage_is_summed_by_every_key
                a_call_that_used_nothing_is_not_counted
                usage_rebuilds_equal;
            learners: making_a_learner_twice_makes_one
                an_alias_belongs_to_one_learner
                a_learner_changes_class_and_aliases
                learners_are_listed_by_id_in_pages
                the_status_is_written_by_compare_and_set
                of_two_fleets_one_writes_the_status
                a_wake_is_written_once_and_never_lowered
                stirring_lists_those_that_are_not_plainly_asleep
                the_census_counts_every_learner_once
                classes_are_kept_whole;
            access: a_token_lets_in_until_it_expires
                a_secret_is_good_for_its_own_kind
                a_code_redeemed_by_twenty_at_once_lets_one_in
                revoking_takes_every_secret_of_one_learner
                revoking_one_secret_leaves_the_others
                expired_secrets_are_swept;
            erase: a_learner_is_open_until_it_is_closed
                a_closed_learner_takes_nothing_more
                closing_fails_the_open_turns
                an_erased_learner_leaves_nothing_behind
                a_learner_made_anew_starts_empty_above_the_fence
                erased_repositories_are_listed_until_they_are_swept
                erasing_disturbs_no_neighbour_and_no_reader;
            feed: events_of_a_learner_are_numbered_without_holes
                a_reader_beside_many_writers_sees_every_event_once
                a_hint_follows_an_append
                a_class_that_is_written_is_a_hint_for_those_of_it_who_wait_for_their_next_try
                a_learner_that_changes_class_or_aliases_is_a_hint;
            processes: a_process_is_there_until_it_goes_or_is_silent
                a_task_is_one_holders_at_a_time;
        }
    };
    ($open:path; $($module:ident: $($name:ident)+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                let Some((store, _guard)) = $open().await else {
                    return;
                };
                $crate::suite::$module::$name(store.clone()).await;
                // Whatever was done, what is stored adds up.
                let found = store.contradictions().await.expect("read");
                assert_eq!(found, []);
            }
        )+)+
    };
}

#[cfg(test)]
mod tests {
    /// A behaviour that the macro does not name would never run.
    #[test]
    fn every_behaviour_is_run() {
        let listed = include_str!("mod.rs");
        let sources = [
            include_str!("access.rs"),
            include_str!("attempts.rs"),
            include_str!("claims.rs"),
            include_str!("commits.rs"),
            include_str!("erase.rs"),
            include_str!("feed.rs"),
            include_str!("heads.rs"),
            include_str!("inbox.rs"),
            include_str!("learners.rs"),
            include_str!("ledger.rs"),
            include_str!("outcomes.rs"),
            include_str!("processes.rs"),
        ];
        let words: Vec<&str> = listed
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .collect();
        for source in sources {
            for behaviour in source.split("\npub async fn ").skip(1) {
                let name = behaviour.split('(').next().unwrap_or_default();
                assert!(words.contains(&name), "{name} is in no list");
            }
        }
    }
}
