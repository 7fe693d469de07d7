//! Rules broken on purpose, one at a time.

/// Which rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// 1: a second fleet assigns before the epoch is stored, so two pods get the same one.
    AssignsBeforeStoring,
    /// 1: a commit is taken without a look at the fence.
    CommitsUnfenced,
    /// 2: a contact sets the fence, also to a lower epoch.
    ContactLowersFence,
    /// 3: the channel is answered before the message is stored.
    AnswersBeforeStoring,
    /// 3: a repeated message is taken as another one.
    ForgetsKeys,
    /// 3: a turn is claimed though one before it is open.
    SkipsTheQueue,
    /// 3: a failure is written without the lock under which a commit ends the turn.
    FailsWithoutLock,
    /// 4: the turn's outcome is written in a second transaction, after the head.
    CommitsInHalves,
    /// 4: `done` is said when the agent ends.
    ReportsBeforeCommit,
    /// 4: the head is read before the fence is raised, and a commit does not look at the parent.
    ReadsBeforeFencing,
    /// 4: a death is counted though the turn has ended, and it runs again.
    RunsAgainWhatIsDone,
    /// 4: the pod of a failed turn takes the next one.
    KeepsFailedWork,
    /// 4: a repeated commit is a second one.
    CommitsRepeats,
    /// 5: the commit is sent when the upload begins, and nobody looks.
    CommitsBeforeDurable,
    /// The lease of a turn's owner is not looked at.
    IgnoresLeases,
}
