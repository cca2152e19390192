//! What was there before the migration began is copied beside live traffic.

mod beside_writers;
mod cascades;
mod copying;
mod deferred;
mod half_filled;
mod progress;
mod replica;
mod seeded;
mod throttled;
mod writers;
