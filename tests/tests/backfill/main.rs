//! What was there before the migration began is copied beside live traffic.

mod before_parents;
mod beside_writers;
mod both_filled;
mod cascades;
mod copying;
mod deferred;
mod from_mark;
mod half_filled;
mod progress;
mod replica;
mod scale;
mod seeded;
mod throttled;
mod writers;
