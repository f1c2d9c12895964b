"""Everything of a ball that people do not share: reader, model, criterion, metrics, tracker."""
