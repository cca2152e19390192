//! Users move to the new side one by one, and back, while they write: nothing that was acknowledged to them is lost.

mod answers;
mod commands;
mod failing;
mod fences;
mod killed;
mod many;
mod rest;
mod stage;
mod together;
mod writers;
