//! A program that was built without the feature `hub`.

use experiments::problem::data::{Dataset, Hub};
use indicatif::MultiProgress;

#[test]
fn a_data_set_of_the_hub_is_an_error_that_says_what_to_do() {
    for (dataset, repo) in [
        (Dataset::FashionMnist, "zalando-datasets/fashion_mnist"),
        (Dataset::Cifar10, "cifar10"),
        (Dataset::Tinyshakespeare, "karpathy/tiny_shakespeare"),
    ] {
        let error = dataset.load(None, None, &Hub::new(&MultiProgress::new())).unwrap_err().to_string();
        let expected = format!(
            "cannot download the Hub's data set {repo}: this program was built without the feature `hub`; \
             name the folder of the data set's files with --data-dir DIR, or build with that feature"
        );
        assert_eq!(error, expected);
    }
}
