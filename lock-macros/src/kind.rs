//! Which kind of lock a function wants, as several options say it together.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote_spanned;

use crate::errors::Errors;
use crate::options::mode::Mode;
use crate::options::name::Name;
use crate::options::permits::Count;
use crate::options::table::Settings;

/// The kind of lock, of one or of several.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    primitive: Primitive,
    is_several: bool,
}

#[derive(Clone, Copy)]
enum Primitive {
    Mutex,
    Side(Mode),
    Semaphore,
}

impl Kind {
    /// Finds the kind, as far as the options can be read.
    pub(crate) fn of(settings: &Settings) -> Self {
        let primitive = match settings.mode {
            Some(mode) => Primitive::Side(mode),
            None if settings.key("permits").is_some() => Primitive::Semaphore,
            None => Primitive::Mutex,
        };
        Self {
            primitive,
            is_several: matches!(settings.name, Some(Name::Several(_))),
        }
    }

    /// Writes the name of the guard's type, which is at the root of the runtime.
    pub(crate) fn guard(self) -> Ident {
        let name = match self.primitive {
            _ if self.is_several => "MultiLockGuard",
            Primitive::Mutex => "LockGuard",
            Primitive::Side(Mode::Read) => "RwLockReadGuard",
            Primitive::Side(Mode::Write) => "RwLockWriteGuard",
            Primitive::Semaphore => "SemaphorePermit",
        };
        Ident::new(name, Span::mixed_site())
    }

    /// Writes the place of the guard.
    pub(crate) fn slot(self, private: &TokenStream) -> TokenStream {
        let guard = self.guard();
        match self.primitive {
            Primitive::Mutex if !self.is_several => {
                quote_spanned!(Span::mixed_site()=> #private::GuardSlot::new())
            }
            _ => quote_spanned! {Span::mixed_site()=>
                #private::GuardCell::<#private::#guard>::new()
            },
        }
    }

    /// Writes the call that makes a request one for this kind of lock.
    pub(crate) fn setter(self, settings: &Settings) -> TokenStream {
        match self.primitive {
            Primitive::Mutex => TokenStream::new(),
            Primitive::Side(mode) => {
                let method = Ident::new(mode.word(), Span::mixed_site());
                quote_spanned!(Span::mixed_site()=> .#method())
            }
            Primitive::Semaphore => {
                let permits = settings.permits.as_ref();
                let take = match &settings.take {
                    Some(take) => quote_spanned!(Span::mixed_site()=> #take),
                    None => quote_spanned!(Span::mixed_site()=> 1),
                };
                quote_spanned!(Span::mixed_site()=> .permits(#permits, #take))
            }
        }
    }
}

/// Reports options that contradict each other, or that need another one. What is `misread` may be
/// that one.
pub(crate) fn check(settings: &Settings, misread: bool, errors: &mut Errors) {
    if let (Some(_), Some(permits)) = (settings.key("mode"), settings.key("permits")) {
        errors.add(
            permits,
            "`permits` makes it a semaphore, and `mode` a reader–writer lock, remove one of them",
        );
    }
    if let (Some(take), None) = (settings.key("take"), settings.key("permits"))
        && !misread
    {
        let message = match settings.key("mode") {
            None => "`take` needs `permits`, write how many there are in all: `permits = 5`",
            Some(_) => {
                "`take` is for semaphores, and `mode` makes it a reader–writer lock, remove one"
            }
        };
        errors.add(take, message);
    }
    if let (Some(Count::Constant(literal, take)), Some(Count::Constant(_, permits))) =
        (&settings.take, &settings.permits)
        && take > permits
    {
        errors.add(
            literal,
            format!("`take` is above `permits`, expected at most {permits}"),
        );
    }
    if let (Some(Mode::Read), Some(min_hold)) = (settings.mode, settings.key("min_hold")) {
        errors.add(
            min_hold,
            "`min_hold` with `mode = \"read\"` would keep writers out when nobody reads any more, \
             remove it",
        );
    }
}
