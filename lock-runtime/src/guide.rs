//! The guides: what is promised, how each option and each provider works, what operators see.
//!
//! They are the files in the repository's directory `docs`. The module exists in the documentation
//! alone: a program cannot name it.

pub mod guarantees {
    //! What is promised, how the providers differ, and what is not promised.
    #![doc = include_str!("../docs/guarantees.md")]
}

pub mod attribute {
    //! The attribute's names, durations and outcomes, and jobs on several replicas.
    #![cfg_attr(not(feature = "macros"), doc = "It needs the feature `macros`.")]
    #![cfg_attr(feature = "macros", doc = include_str!("../docs/attribute.md"))]
}

pub mod configuration {
    //! Where locks are, from a file and the environment.
    #![cfg_attr(not(feature = "serde"), doc = "It needs the feature `serde`.")]
    #![cfg_attr(feature = "serde", doc = include_str!("../docs/configuration.md"))]
}

pub mod observability {
    //! Spans, log events and metrics.
    #![doc = include_str!("../docs/observability.md")]
}

pub mod writing_a_provider {
    //! How to keep locks on a server that the library does not know.
    #![doc = include_str!("../docs/writing-a-provider.md")]
}

pub mod benchmarks {
    //! What locks cost, on each provider and beside other crates.
    #![doc = include_str!("../docs/benchmarks.md")]
}

pub mod providers {
    //! A page for each provider: how to set it up, how it behaves, and what it assumes.

    pub mod in_process {
        //! Locks in this process alone.
        #![doc = include_str!("../docs/providers/in-process.md")]
    }

    pub mod file {
        //! Locks between the processes of one machine.
        #![cfg_attr(not(feature = "file"), doc = "It needs the feature `file`.")]
        #![cfg_attr(feature = "file", doc = include_str!("../docs/providers/file.md"))]
    }

    pub mod postgres {
        //! Locks on a PostgreSQL server.
        #![cfg_attr(not(feature = "postgres"), doc = "It needs the feature `postgres`.")]
        #![cfg_attr(feature = "postgres", doc = include_str!("../docs/providers/postgres.md"))]
    }

    pub mod redis {
        //! Locks on a Redis or Valkey server.
        #![cfg_attr(not(feature = "redis"), doc = "It needs the feature `redis`.")]
        #![cfg_attr(feature = "redis", doc = include_str!("../docs/providers/redis.md"))]
    }

    pub mod zookeeper {
        //! Locks on a ZooKeeper ensemble.
        #![cfg_attr(not(feature = "zookeeper"), doc = "It needs the feature `zookeeper`.")]
        #![cfg_attr(feature = "zookeeper", doc = include_str!("../docs/providers/zookeeper.md"))]
    }
}

// Compiles and runs the code of the README, which uses files and the attribute.
#[cfg(all(doctest, feature = "file", feature = "macros"))]
#[doc = include_str!("../README.md")]
struct Readme;
