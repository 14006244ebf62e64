"""How class transport learns its edits: seen, held out, distilled, criticised, summed, rows."""
