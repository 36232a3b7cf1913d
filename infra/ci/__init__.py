"""Steps of GitHub's workflows: compare the pipeline with the commit, report changes, test the image."""
