//! One page for each task. The pages are documentation only: no program contains these modules.
//!
//! Read [`getting_started`] first. [`life_of_a_token`] explains what happens in the background, and
//! [`what_happens_when`] what callers see when something fails.

/// A page of the guide: its text, and where its links to items behind features lead when a feature is off.
macro_rules! page {
    ($name:ident, $text:literal) => {
        pub mod $name {
            #![doc = include_str!($text)]
            // A blank line, because link definitions cannot continue a paragraph.
            #![cfg_attr(not(all(feature = "encryption", feature = "redis", feature = "testing")), doc = "")]
            #![cfg_attr(not(feature = "redis"), doc = "[`RedisStore`]: super::choosing_a_store#redis")]
            #![cfg_attr(not(feature = "redis"), doc = "[`RedisConfig`]: super::choosing_a_store#redis")]
            #![cfg_attr(
                not(feature = "encryption"),
                doc = "[`EncryptedStore`]: super::choosing_a_store#encrypted-records"
            )]
            #![cfg_attr(not(feature = "testing"), doc = "[`FakeVendor`]: super::testing#a-fake-vendor")]
            #![cfg_attr(not(feature = "testing"), doc = "[`VendorFault`]: super::testing#faults")]
            #![cfg_attr(not(feature = "testing"), doc = "[`FakeClock`]: super::testing#a-clock-that-a-test-moves")]
            #![cfg_attr(
                not(feature = "testing"),
                doc = "[`FakeProvider`]: super::testing#a-provider-that-a-test-scripts"
            )]
            #![cfg_attr(
                not(feature = "testing"),
                doc = "[`context`]: super::testing#a-provider-or-a-store-of-your-own"
            )]
            // The names that the links of the page use.
            #[cfg(feature = "testing")]
            use super::super::testing::{FakeClock, FakeProvider, FakeVendor, VendorFault, context};
            use super::super::*;
        }
    };
}

page!(getting_started, "getting_started.md");
page!(choosing_a_store, "choosing_a_store.md");
page!(life_of_a_token, "life_of_a_token.md");
page!(using_the_token, "using_the_token.md");
page!(signing_in, "signing_in.md");
page!(providers, "providers.md");
page!(extending, "extending.md");
page!(many_tenants, "many_tenants.md");
page!(idempotency, "idempotency.md");
page!(what_happens_when, "what_happens_when.md");
page!(looking_inside, "looking_inside.md");
page!(testing, "testing.md");
page!(performance, "performance.md");
page!(migrating, "migrating.md");
