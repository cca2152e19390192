//! Users change sides while they write, and go back: nothing that was acknowledged to them is lost.

mod abandoned;
mod abort;
mod accounts;
mod application;
mod facts;
mod fences;
mod finish;
mod gates;
mod groups;
mod killed;
mod pauses;
mod restored;
mod stage;
mod there_and_back;
