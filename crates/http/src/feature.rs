//! Features at the door: which of a tenant's plan a request needs.
//!
//! Always: every check is counted, and every denial; the labels are names that the application declared, so there are few.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use insula_catalog::Route;
use insula_core::feature::FeatureType;
use insula_core::{Clock, Feature, Kind, Plan, SystemClock};
use tower::{Layer, Service};

use crate::Problem;

/// Whether a plan has a feature now. Counted.
#[must_use]
pub fn is_on<T: FeatureType>(feature: &Feature<T>, plan: &Plan) -> bool {
    is_on_at(feature, plan, &SystemClock)
}

fn is_on_at<T: FeatureType>(feature: &Feature<T>, plan: &Plan, clock: &impl Clock) -> bool {
    let on = feature.is_on(plan, clock);
    let outcome = if on { "granted" } else { "denied" };
    metrics::counter!("insula_feature_checks_total", "feature" => feature.name(), "outcome" => outcome).increment(1);
    on
}

/// # Errors
/// `Denied`, in words for the client, when the plan has not the feature. Counted.
pub fn require<T: FeatureType>(feature: &Feature<T>, plan: &Plan) -> Result<(), Box<Problem>> {
    if is_on(feature, plan) { Ok(()) } else { Err(Box::new(denied(feature.name(), plan))) }
}

fn denied(feature: &str, plan: &Plan) -> Problem {
    Problem::new(Kind::Denied).detail(format!("Your plan, {}, does not have {feature}.", plan.name))
}

/// Lets only tenants with a feature through: `router.route_layer(RequireLayer::of(&SEARCH))`, inside [`crate::ResolveLayer`].
#[derive(Clone, Copy, Debug)]
pub struct RequireLayer<T: 'static> {
    feature: &'static Feature<T>,
}

impl<T: FeatureType> RequireLayer<T> {
    /// For tenants that have `feature`.
    #[must_use]
    pub const fn of(feature: &'static Feature<T>) -> Self {
        Self { feature }
    }
}

impl<T: FeatureType, S> Layer<S> for RequireLayer<T> {
    type Service = Require<T, S>;
    fn layer(&self, inner: S) -> Self::Service {
        Require { feature: self.feature, inner }
    }
}

/// What [`RequireLayer`] makes.
#[derive(Clone, Copy, Debug)]
pub struct Require<T: 'static, S> {
    feature: &'static Feature<T>,
    inner: S,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<T, S> Service<Request> for Require<T, S>
where
    T: FeatureType + Sync,
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Answer {
        let refused = match request.extensions().get::<Arc<Route>>() {
            Some(route) => require(self.feature, &route.plan).err(),
            // No tenant, no plan.
            None => Some(Box::new(Problem::new(Kind::NoTenant))),
        };
        match refused {
            None => Box::pin(self.inner.call(request)),
            Some(problem) => Box::pin(std::future::ready(Ok(problem.into_response()))),
        }
    }
}
