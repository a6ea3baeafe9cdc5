//! Attributes of the SDK, which re-exports them: `#[insula::requires(SEARCH)]`.
//!
//! For: what a signature cannot say by itself. Not for: logic; an attribute expands to a call of the SDK and nothing more.
//! Always: a mistake is reported where it stands, in words.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{format_ident, quote};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Error, FnArg, ItemFn, Path, Token, parse_quote};

/// Calls an axum handler only for tenants whose plan has a feature, or several: the others are answered 403 before the handler's other
/// arguments are read.
///
/// ```ignore
/// const SEARCH: Feature<bool> = Feature::new("search", false);
///
/// #[insula::requires(SEARCH)]
/// async fn search(tenant: Tenant, Query(query): Query<Search>) -> Result<Json<Found>> { … }
/// ```
///
/// For free `async fn` handlers; it makes a type beside the function.
#[proc_macro_attribute]
pub fn requires(features: TokenStream, handler: TokenStream) -> TokenStream {
    expand(features.into(), handler.into()).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(features: Tokens, handler: Tokens) -> Result<Tokens, Error> {
    let features = Punctuated::<Path, Token![,]>::parse_terminated.parse2(features)?;
    if features.is_empty() {
        return Err(Error::new(Span::call_site(), "name a feature: #[insula::requires(SEARCH)]"));
    }
    let mut handler: ItemFn = syn::parse2(handler)?;
    if handler.sig.asyncness.is_none() {
        return Err(Error::new_spanned(handler.sig.fn_token, "a handler is an async fn"));
    }
    if let Some(receiver @ FnArg::Receiver(_)) = handler.sig.inputs.first() {
        return Err(Error::new_spanned(receiver, "a handler is a free function: it takes no self"));
    }
    let marker = format_ident!("__Requires_{}", handler.sig.ident, span = handler.sig.ident.span());
    handler.sig.inputs.insert(0, parse_quote!(_: ::insula::feature::Required<#marker>));
    let (visibility, features) = (&handler.vis, features.iter());
    Ok(quote! {
        #[doc(hidden)]
        #[allow(non_camel_case_types)]
        #visibility struct #marker;

        impl ::insula::feature::Requirement for #marker {
            fn check(tenant: &::insula::Tenant) -> ::insula::Result<()> {
                #(tenant.require(&#features)?;)*
                ::std::result::Result::Ok(())
            }
        }

        #handler
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(features: Tokens, handler: Tokens) -> String {
        expand(features, handler).map_or_else(|error| error.to_string(), |made| made.to_string())
    }

    #[test]
    fn a_handler_gets_an_argument_in_front() {
        let made = says(
            quote!(SEARCH, features::EXPORTS),
            quote!(
                pub(crate) async fn find(tenant: Tenant) -> Text {
                    text()
                }
            ),
        );
        for part in [
            "pub (crate) struct __Requires_find",
            "async fn find (_ : :: insula :: feature :: Required < __Requires_find > , tenant : Tenant)",
        ] {
            assert!(made.contains(part), "{made}");
        }
        assert!(made.contains("require (& SEARCH)") && made.contains("require (& features :: EXPORTS)"), "{made}");
    }

    #[test]
    fn mistakes_are_said_in_words() {
        assert!(
            says(
                quote!(),
                quote!(
                    async fn f() {}
                )
            )
            .starts_with("name a feature")
        );
        assert!(
            says(
                quote!(X),
                quote!(
                    fn f() {}
                )
            )
            .starts_with("a handler is an async fn")
        );
        assert!(
            says(
                quote!(X),
                quote!(
                    async fn f(&self) {}
                )
            )
            .starts_with("a handler is a free function")
        );
        assert!(
            says(
                quote!("x"),
                quote!(
                    async fn f() {}
                )
            )
            .contains("expected identifier")
        );
    }
}
