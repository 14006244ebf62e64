"""How class transport learns its edits: what is seen, held out, distilled, criticised, summed."""
